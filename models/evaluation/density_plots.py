"""Pictures of long chains: energies at each snapshot beside the data's, energies against steps, the images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.evaluation.long_chains import Snapshot
from models.training.diagnostics import save_grid

GRID_IMAGES = 64


def plot_histograms(data: Mapping[str, Tensor], snapshots: Sequence[Snapshot], path: Path) -> None:
    """Energies of data and of the chains at each snapshot, one panel a snapshot, on common bins, as PNG."""
    # The object interface: pyplot keeps global state and wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.9 * len(snapshots) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    everything = torch.cat([*data.values(), *(snapshot.energies for snapshot in snapshots)]).double()
    bins = np.histogram_bin_edges(everything.numpy(), bins=60)
    for axis, snapshot in zip(figure.subplots(len(snapshots), 1, squeeze=False)[:, 0], snapshots, strict=True):
        for name, energies in data.items():
            axis.hist(energies.numpy(), bins=bins, density=True, histtype="step", label=name)
        axis.hist(snapshot.energies.numpy(), bins=bins, density=True, alpha=0.4, color="tab:gray", label="chains")
        axis.set_title(f"after {snapshot.step:,} steps", fontsize="medium")
        axis.set_yticks([])
    axis.set_xlabel("U, nats")
    figure.axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=100)


def plot_energies(
    data: Mapping[str, Tensor], snapshots: Sequence[Snapshot], trace: Tensor, every: int, path: Path
) -> None:
    """Median energy of the chains with its 5 to 95 % band against steps, on a log axis, beside the data's, as PNG.

    Args:
        trace: [R + 1, N]: energies at steps 0, every, 2 every, ...; the first can not stand on a log axis.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    at = {index * every: energies for index, energies in enumerate(trace) if index > 0}
    at |= {snapshot.step: snapshot.energies for snapshot in snapshots}
    steps = sorted(at)
    quantiles = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    low, middle, high = torch.stack([at[step].double().quantile(quantiles) for step in steps], dim=1).numpy()
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.fill_between(steps, low, high, color="tab:gray", alpha=0.3)
    axis.plot(steps, middle, color="black", linewidth=1.0, label="chains")
    for number, (name, energies) in enumerate(data.items()):
        bounds = energies.double().quantile(quantiles).tolist()
        axis.axhline(bounds[1], color=f"C{number}", linewidth=1.0, label=name)
        axis.axhspan(bounds[0], bounds[2], color=f"C{number}", alpha=0.12)
    axis.set_xscale("log")
    axis.set_xlabel("step")
    axis.set_ylabel("U, nats (median, 5 to 95 %)")
    axis.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def save_grids(snapshots: Sequence[Snapshot], folder: Path) -> None:
    """The first chains of each snapshot, as `images-STEP.png`."""
    for snapshot in snapshots:
        save_grid(snapshot.states[:GRID_IMAGES], folder / f"images-{snapshot.step:08d}.png")
