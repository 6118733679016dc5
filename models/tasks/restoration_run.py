"""Restoring a set of images in chunks that are kept: an interrupted run goes on to the result it would have had.

OUT/parts/train-000016.safetensors   the restored images of a chunk, from number 16 on, and their spread
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import SerializeAsAny
from safetensors.torch import save as save_safetensors
from torch import Tensor

from models.config import Frozen
from models.errors import ChainDiverged
from models.files import replace_file
from models.gradients import Energy
from models.kept import kept_tensors, require_same
from models.noise import SeededNoise
from models.purifier import Preset
from models.streams import Stream
from models.tasks.corruptions import Corrupted, Corruption
from models.tasks.restoration import Method, Restored, Start, denoise, inpaint

CHUNK = 16
"""Images that are restored together, whose noise is one stream's."""


class Restoring(Frozen):
    """What is done to images: `start` counts where lost pixels are marked, `method` where they are not."""

    corruption: SerializeAsAny[Corruption]
    preset: Preset
    start: Start = "smooth"
    method: Method = "extremes"
    seed: int = 0


def spoil(truth: Tensor, split: str, config: Restoring) -> Corrupted:
    """The images [N, C, H, W] as the restorer finds them."""
    return config.corruption(truth, Stream((config.seed, "corruption", split)))


def restore_images(
    energy: Energy,
    corrupted: Corrupted,
    split: str,
    config: Restoring,
    folder: Path,
    identity: Mapping[str, Any],
    advance: Callable[[int], None],
) -> Restored:
    """Every image, chunk by chunk; chunks that `folder` holds are taken from there.

    Args:
        identity: what else decides the result; plain values.
        advance: told of image-steps as they run.

    Raises:
        CheckpointError: a chunk in the folder belongs to another run.
        ChainDiverged: a restored image is not finite.
    """
    whole = json.loads(json.dumps({**identity, **config.model_dump(mode="json")}))
    steps = config.preset.replicates * config.preset.num_steps
    chunks = []
    for first in range(0, len(corrupted.images), CHUNK):
        rows, path = slice(first, first + CHUNK), folder / "parts" / f"{split}-{first:06d}.safetensors"
        part = Corrupted(corrupted.images[rows], corrupted.mask[rows])
        asked = {**whole, "images": len(part.images)}  # a shorter run's last chunk is under other noise
        kept = kept_tensors(path, ("images", "spread"), "restored images")
        if kept is not None:
            require_same(path, json.loads(kept[1].get("run", "{}")), asked)
            restored = Restored(*(kept[0][name].to(part.images) for name in ("images", "spread")))
        else:
            restored = _restore(energy, part, Stream((config.seed, "restore", split, first)), config)
            if not restored.images.isfinite().all():
                raise ChainDiverged(f"{split} images from number {first}: a chain left the finite numbers")
            held = {"images": restored.images.cpu().contiguous(), "spread": restored.spread.cpu().contiguous()}
            replace_file(path, save_safetensors(held, {"run": json.dumps(asked)}))
        advance(steps * len(part.images))
        chunks.append(restored)
    return Restored(torch.cat([each.images for each in chunks]), torch.cat([each.spread for each in chunks]))


def _restore(energy: Energy, part: Corrupted, stream: Stream, config: Restoring) -> Restored:
    seed = int(stream.generator().integers(2**63))
    noise = SeededNoise(torch.Generator(part.images.device).manual_seed(seed))
    if config.corruption.marked:
        return inpaint(energy, part.images, part.mask, config.preset, config.start, noise)
    return denoise(energy, part.images, config.preset, config.method, noise)
