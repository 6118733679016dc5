"""Composed concepts as pictures: errors against what was seen, and what was drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from models.training.diagnostics import image_grid

SHOWN = 12
LABELS = {"position": "mean distance from the place asked for, pixels", "scale": "mean relative error of scale"}


def plot_zero_shot(fractions: Sequence[float], curves: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """One panel a kind of error, one line a method, against the fraction of combinations seen."""
    # The object interface: pyplot keeps global state and wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (kind, lines) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        for method, errors in lines.items():
            axis.plot(fractions, errors, marker="o", label=method)
        axis.set_xlabel("fraction of combinations seen besides the slices")
        axis.set_ylabel(LABELS[kind])
        axis.set_ylim(bottom=0)
        axis.legend(fontsize="small")
    figure.savefig(path, dpi=200)


def plot_compositions(shown: Mapping[str, Tensor], path: Path) -> None:
    """The first images of each set of concepts [N, 1, S, S], a row each; a column asks for the same levels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SHOWN, 1.3 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (names, images) in zip(figure.subplots(len(shown), 1), shown.items(), strict=True):
        axis.imshow(image_grid(images[:SHOWN], columns=SHOWN))
        axis.set_title(names, fontsize="small")
        axis.set_axis_off()
    figure.savefig(path, dpi=150)
