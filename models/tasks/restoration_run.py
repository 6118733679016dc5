"""Restoring a set of images in chunks that are kept: an interrupted run goes on to the result it would have had.

OUT/parts/train-000016.safetensors   the restored images of a chunk, from number 16 on, and their spread
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import SerializeAsAny
from safetensors.torch import save as save_safetensors
from torch import Tensor

from models.config import Frozen
from models.console import progress_bar
from models.data import load_dataset
from models.errors import ChainDiverged, DataError
from models.files import replace_file
from models.gradients import Energy
from models.kept import kept_tensors, require_same
from models.manifest import ImageShape
from models.noise import SeededNoise
from models.pixels import from_uint8
from models.purifier import Preset
from models.streams import Stream
from models.tasks.baselines import baselines
from models.tasks.corruptions import Corrupted, Corruption
from models.tasks.restoration import Method, Restored, Start, denoise, inpaint
from models.tasks.restoration_result import RestorationResult, restoration_result

CHUNK = 16
"""Images that are restored together, whose noise is one stream's."""
PARTS, NAMES = "parts", ("images", "spread")
SPLITS = ("train", "test")


class Restoring(Frozen):
    """What is done to images: `start` counts where lost pixels are marked, `method` where they are not."""

    corruption: SerializeAsAny[Corruption]
    preset: Preset
    start: Start = "smooth"
    method: Method = "extremes"
    seed: int = 0


@dataclass(frozen=True)
class Spoiled:
    """Images of each split in [-1, 1]: as they were, as the restorer found them, and as it left them."""

    truth: Mapping[str, Tensor]
    corrupted: Mapping[str, Corrupted]
    restored: Mapping[str, Restored]

    def rows(self, split: str, count: int) -> tuple[Tensor, float]:
        """The first images of a split: as they were, spoiled, restored, and how far the replicates spread.

        Returns:
            [N, 4, C, H, W], and the greatest spread among them, which is shown white.
        """
        truth, corrupted, restored = self.truth[split], self.corrupted[split], self.restored[split]
        most = float(restored.spread[:count].max())
        brightness = (restored.spread / (most or 1.0) * 2.0 - 1.0).expand_as(truth)
        columns = (truth, corrupted.images, restored.images, brightness)
        return torch.stack([each[:count] for each in columns], 1), most


def true_images(shape: ImageShape, name: str, split: str, count: int, folder: Path | None = None) -> Tensor:
    """The first `count` images of a dataset, [N, C, H, W] in [-1, 1]; raises DataError unless they have `shape`."""
    data = load_dataset(name, "train" if split == "train" else "test", folder, shape.height, shape.channels)
    expected = (shape.channels, shape.height, shape.width)
    if data.shape != expected or len(data) < count:
        raise DataError(
            f"{name} {split} has {len(data)} images of shape {data.shape}; expected at least {count} of {expected}, "
            "as the energy reads"
        )
    return from_uint8(data.images[:count])


def restore_splits(
    energy: Energy, truth: Mapping[str, Tensor], config: Restoring, folder: Path, identity: Mapping[str, Any]
) -> tuple[RestorationResult, Spoiled]:
    """Spoil training and test images, restore them as `restore_images` does, and compare that with the baselines."""
    corrupted = {split: spoil(truth[split], split, config) for split in SPLITS}
    others = {split: baselines(each, config.corruption.marked) for split, each in corrupted.items()}
    restored = {}
    work = config.preset.replicates * config.preset.num_steps * sum(map(len, truth.values()))
    with progress_bar("image-steps", work) as progress:
        advance = partial(progress.advance, progress.task_ids[0])
        for split, each in corrupted.items():
            restored[split] = restore_images(energy, each, split, config, folder, identity, advance)
    return restoration_result(truth, restored, others), Spoiled(truth, corrupted, restored)


def restoring_seconds(folder: Path) -> float:
    """CPU seconds that the chains of what is restored in `folder` have taken; 0 where nothing is."""
    kept = [kept_tensors(path, NAMES, "restored images") for path in (folder / PARTS).glob("*.safetensors")]
    return sum(float(each[1].get("cpu_seconds", "0")) for each in kept if each is not None)


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
        rows, path = slice(first, first + CHUNK), folder / PARTS / f"{split}-{first:06d}.safetensors"
        part = Corrupted(corrupted.images[rows], corrupted.mask[rows])
        asked = {**whole, "images": len(part.images)}  # a shorter run's last chunk is under other noise
        kept = kept_tensors(path, NAMES, "restored images")
        if kept is not None:
            require_same(path, json.loads(kept[1].get("run", "{}")), asked)
            restored = Restored(*(kept[0][name].to(part.images) for name in NAMES))
        else:
            began = time.process_time()
            restored = _restore(energy, part, Stream((config.seed, "restore", split, first)), config)
            if not restored.images.isfinite().all():
                raise ChainDiverged(f"{split} images from number {first}: a chain left the finite numbers")
            held = {"images": restored.images.cpu().contiguous(), "spread": restored.spread.cpu().contiguous()}
            spent = {"cpu_seconds": f"{time.process_time() - began:.1f}"}
            replace_file(path, save_safetensors(held, {"run": json.dumps(asked), **spent}))
        advance(steps * len(part.images))
        chunks.append(restored)
    return Restored(torch.cat([each.images for each in chunks]), torch.cat([each.spread for each in chunks]))


def _restore(energy: Energy, part: Corrupted, stream: Stream, config: Restoring) -> Restored:
    seed = int(stream.generator().integers(2**63))
    noise = SeededNoise(torch.Generator(part.images.device).manual_seed(seed))
    if config.corruption.marked:
        return inpaint(energy, part.images, part.mask, config.preset, config.start, noise)
    return denoise(energy, part.images, config.preset, config.method, noise)
