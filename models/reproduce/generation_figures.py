"""Pictures of generated images: kinds side by side, chains from class to class, and nearest training images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.console import progress_bar
from models.pixels import from_uint8
from models.tasks.generation import Ensemble, walk
from models.tasks.generation_run import Generated
from models.training.diagnostics import image_grid, save_grid
from models.training.trained import TrainedEnergy

SHOWN = 40
COLUMNS = 10
NEIGHBOURS_SHOWN = 16


def plot_samples(samples: Mapping[str, Tensor], path: Path) -> None:
    """The first uint8 images [N, C, H, W] of each kind, as PNG."""
    # The object interface: pyplot keeps global state and wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(samples), 2.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (name, images) in zip(figure.subplots(1, len(samples), squeeze=False)[0], samples.items(), strict=True):
        axis.imshow(np.asarray(image_grid(from_uint8(images[:SHOWN]), COLUMNS)), interpolation="nearest")
        axis.set_title(name)
        axis.set_axis_off()
    figure.savefig(path, dpi=120)


def plot_neighbours(samples: Tensor, train: Tensor, rows: Tensor, path: Path) -> None:
    """A line a sample: the sample, then the training images at `rows` [N, k]; all uint8 [N, C, H, W]."""
    shown = [torch.cat([sample[None], train[near]]) for sample, near in zip(samples, rows, strict=True)]
    save_grid(from_uint8(torch.cat(shown[:NEIGHBOURS_SHOWN])), path, columns=1 + rows.shape[1])


def plot_walks(energy: TrainedEnergy, samples: Generated, calls: int, num_steps: int, path: Path) -> float:
    """A sample of each class and where it comes to as each other, a line a sample; beside it one cycle through all.

    Returns:
        The share of the chains in whose end the energy sees the class that they became, before all others.
    """
    assert samples.labels is not None
    classes, device = range(energy.classes), energy.parts.training.device
    first = [int((samples.labels == label).nonzero()[0]) for label in classes if bool((samples.labels == label).any())]
    starts = from_uint8(samples.images[first]).to(device)
    ensemble, sampler = Ensemble([energy]), energy.sampler.model_copy(update={"num_steps": num_steps})
    generator = torch.Generator(device).manual_seed(0)
    with progress_bar("chains from class to class", 2 * calls * len(classes)) as progress:

        def advance() -> None:
            progress.advance(progress.task_ids[0])

        crossed = [next(walk(ensemble, starts, [label], sampler, calls, generator, advance)) for label in classes]
        cycled = list(walk(ensemble, starts, classes, sampler, calls, generator, advance))
    seen = torch.stack([_most_likely(energy, ends) == label for label, ends in zip(classes, crossed, strict=True)])
    lines = [torch.stack([starts, *stages], 1).flatten(0, 1) for stages in (crossed, cycled)]
    save_grid(lines[0], path, columns=1 + len(classes), beside=lines[1])
    return float(seen.float().mean())


@torch.no_grad()
def _most_likely(energy: TrainedEnergy, images: Tensor) -> Tensor:
    """argmin_y E(x, y) of images [N, C, H, W], [N]."""
    labels = torch.arange(energy.classes, device=images.device)
    energies = [energy(label.expand(len(images)))(images) for label in labels]
    return torch.stack(energies, 1).argmin(1)
