"""Predicted trajectories as a picture: their distance from real ones at each step, and some of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from models.tasks.trajectories import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#e69f00", "#009e73")  # told apart by colour-blind readers (Okabe, Ito)


class Shown(NamedTuple):
    """One joint from one start: its angle before, [P], what it really did, [H], samples [K, H] and a regression [H]."""

    title: str
    past: Tensor
    real: Tensor
    samples: Tensor
    regression: Tensor


def plot_trajectories(
    settings: Mapping[str, Mapping[str, Sequence[Scores]]],
    floor: Sequence[float],
    shown: Sequence[Shown],
    seconds: float,
    path: Path,
) -> None:
    """A PNG: a panel a setting with the Fréchet distances of each model, mean and standard deviation over its runs, and
    below them the trajectories.

    Args:
        floor: the distance of other real trajectories at each step.
        seconds: a step takes.
    """
    # The object interface: pyplot keeps global state and wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    panels = above.subplots(1, len(settings), squeeze=False)[0]
    for axis, (setting, models) in zip(panels, settings.items(), strict=True):
        _plot_distances(axis, models, floor)
        axis.set_title(setting)
    panels[0].set_ylabel("Fréchet distance of states")
    panels[0].legend(fontsize="small")
    for axis, each in zip(below.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _plot_joint(axis, each, seconds)
    figure.savefig(path, dpi=130)


def _plot_distances(axis: "Axes", models: Mapping[str, Sequence[Scores]], floor: Sequence[float]) -> None:
    steps = range(1, len(floor) + 1)
    for colour, (name, runs) in zip(COLOURS, models.items(), strict=False):
        values = torch.tensor([run.states for run in runs])
        mean, spread = values.mean(0), values.std(0) if len(runs) > 1 else torch.zeros(len(floor))
        axis.plot(steps, mean.numpy(), color=colour, label=name)
        low = (mean - spread).clamp(min=1e-4)
        axis.fill_between(steps, low.numpy(), (mean + spread).numpy(), color=colour, alpha=0.2, linewidth=0)
    axis.plot(steps, list(floor), color="black", linestyle=":", label="real, from other starts")
    axis.set_yscale("log")
    axis.set_xlabel("steps ahead")


def _plot_joint(axis: "Axes", shown: Shown, seconds: float) -> None:
    now = shown.past[-1:]
    ahead = [seconds * step for step in range(len(shown.real) + 1)]
    for sample in shown.samples:
        axis.plot(ahead, torch.cat([now, sample]).numpy(), color=COLOURS[0], alpha=0.4, linewidth=0.8)
    axis.plot(ahead, torch.cat([now, shown.regression]).numpy(), color=COLOURS[1])
    before = [-seconds * step for step in reversed(range(len(shown.past)))]
    axis.plot(before + ahead[1:], torch.cat([shown.past, shown.real]).numpy(), color="black")
    axis.set_title(shown.title, fontsize="small")
    axis.set_xlabel("seconds")
