"""Rounds of generation in a folder: those that are finished are kept, and an interrupted one begins again."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from models.banks import Fresh
from models.console import progress_bar
from models.files import replace_file
from models.kept import kept_tensors
from models.pixels import to_uint8
from models.tasks.generation import Ensemble, Round, generate
from models.training.initialisers import labelled_source, noise_source
from models.training.trained import TrainedEnergy


@dataclass(frozen=True)
class Generated:
    """Images uint8 [N, C, H, W], labels int64 [N] where the energy has classes, and what they cost."""

    images: Tensor
    labels: Tensor | None
    cpu_seconds: float


def generate_rounds(
    trained: TrainedEnergy, ensemble: Ensemble, config: Round, rounds: int, num_steps: int, folder: Path
) -> Generated:
    """Rounds of chains from noise, `num_steps` a call, each in folder/NUMBER.safetensors and seeded by its number.

    Raises:
        CheckpointError: a file in the folder does not hold a round.
    """
    device = trained.parts.training.device
    sampler = trained.sampler.model_copy(update={"num_steps": num_steps})

    def make(number: int, advance: Callable[[], None]) -> Fresh:
        generator = torch.Generator(device).manual_seed(number)
        source = noise_source(trained.data.shape, generator)
        if trained.classes:
            source = labelled_source(source, torch.arange(trained.classes, device=device), generator)
        return generate(ensemble, source, sampler, config, generator, advance)

    parts = []
    with progress_bar(f"samples, {folder.name}", rounds * config.calls) as progress:
        task = progress.task_ids[0]
        for number in range(rounds):
            path = folder / f"{number:03}.safetensors"
            names = ("images", "cpu_seconds", *(["labels"] if trained.classes else []))
            kept = kept_tensors(path, names, "images")
            parts.append(kept[0] if kept else _keep(path, partial(make, number, partial(progress.advance, task))))
            progress.update(task, completed=(number + 1) * config.calls)
    labels = torch.cat([part["labels"] for part in parts]) if trained.classes else None
    seconds = sum(float(part["cpu_seconds"]) for part in parts)
    return Generated(torch.cat([part["images"] for part in parts]), labels, seconds)


def _keep(path: Path, make: Callable[[], Fresh]) -> dict[str, Tensor]:
    start = time.process_time()
    made = make()
    tensors = {"images": to_uint8(made.images).cpu(), "cpu_seconds": torch.tensor(time.process_time() - start)}
    if made.labels is not None:
        tensors["labels"] = made.labels.cpu()
    replace_file(path, save_safetensors(tensors))
    return tensors
