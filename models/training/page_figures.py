"""The figures of a run's page, as SVG."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.pages.canvas import BLUE, DASHES, GREY, HUES, INK, ORANGE, draw
from models.training.diagnostics import MAX_LAG, Series, correlation
from models.training.diagnostics_ages import AgeMix
from models.training.page_fidelity import FidelityLine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 240
"""Of a trace: an SVG of every update would weigh megabytes."""
BARS = 40


def trace(name: str, updates: Series, lines: Mapping[str, Series], steps: Sequence[int], zero: bool = False) -> str:
    """Values against updates: the mean of some at a time, with a band from the lowest to the highest.

    Args:
        steps: updates to mark.
        zero: whether to draw the line at 0.
    """

    def paint(axes: "Axes") -> None:
        for step in steps:
            axes.axvline(step, color=GREY, linestyle=":", linewidth=1.0)
        if zero:
            axes.axhline(0.0, color=INK, linewidth=1.0)
        for index, (label, values) in enumerate(lines.items()):
            parts = np.array_split(values, min(POINTS, len(values)))
            at = [float(part[-1]) for part in np.array_split(updates, len(parts))]
            if len(parts) < len(values):
                low, high = [part.min() for part in parts], [part.max() for part in parts]
                axes.fill_between(at, low, high, color=HUES[index], alpha=0.2, linewidth=0)
            means = [float(part.mean()) for part in parts]
            axes.plot(at, means, color=HUES[index], linestyle=DASHES[index], linewidth=1.2, label=label)
        axes.set_xlabel("update")

    return draw(name, 2.6, paint, legend=len(lines) > 1)


def autocorrelations(name: str, d: Series, r: Series) -> str:
    """Of the scaled energy gap d and the standardised drift length r, against the lag."""

    def paint(axes: "Axes") -> None:
        axes.axhline(0.0, color=INK, linewidth=1.0)
        lags = np.arange(MAX_LAG + 1)
        for index, (label, series) in enumerate({"energy gap d": d, "drift length r": r}.items()):
            values = correlation(series, series)[MAX_LAG:]
            axes.plot(lags, values, "os"[index] + DASHES[index], color=HUES[index], label=label)
        axes.set_xlabel("lag, updates")

    return draw(name, 2.6, paint, legend=True)


def crosscorrelation(name: str, d: Series, r: Series) -> str:
    """mean d[t] r[t + lag], against the lag."""

    def paint(axes: "Axes") -> None:
        lags = np.arange(-MAX_LAG, MAX_LAG + 1)
        axes.axhline(0.0, color=INK, linewidth=1.0)
        axes.vlines(lags, 0.0, correlation(d, r), color=BLUE, linewidth=3)
        axes.set_xlabel("lag, updates: right of 0 the drift follows the gap")

    return draw(name, 2.6, paint)


def ages(name: str, found: Series, mix: AgeMix, updates: int) -> str:
    """Ages of a bank's chains, with how many of each the recipe implies, in the end and by now."""
    most = max(int(found.max()), mix.reach(), 1)
    width = -(-(most + 1) // BARS)
    edges = np.arange(0, most + 1 + width, width)
    counts = np.histogram(found, edges)[0]
    # Ages are whole numbers: a bar covers those from its edge up to, and not with, the next.
    oldest = int(edges[-1]) - 1
    expected = {"recipe, in the end": mix.stationary(oldest), "recipe, by now": mix.after(updates, oldest)}

    def paint(axes: "Axes") -> None:
        axes.bar(edges[:-1] - 0.5, counts, width, align="edge", color=BLUE, alpha=0.45, label="chains")
        for index, (label, shares) in enumerate(expected.items()):
            if shares is not None:
                heights = len(found) * shares.reshape(-1, width).sum(1)
                hue, dash = (ORANGE, HUES[2])[index], DASHES[index]
                axes.stairs(heights, edges - 0.5, color=hue, linestyle=dash, linewidth=1.8, label=label)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("age, updates since the chain restarted")
        axes.set_ylabel("chains")

    return draw(name, 2.8, paint, legend=True)


def fidelity(name: str, lines: Sequence[FidelityLine]) -> str:
    """One metric against updates, above its floor."""

    def paint(axes: "Axes") -> None:
        updates = [line.update for line in lines]
        axes.plot(updates, [line.value for line in lines], "o-", color=BLUE, label="samples")
        axes.plot(updates, [line.floor for line in lines], "s:", color=GREY, label="real images (floor)")
        axes.set_xlabel("update")

    return draw(name, 2.6, paint, legend=True)
