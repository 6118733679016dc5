"""The life cycle as pictures: fidelity and energies against steps, and what chains look like on the way."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.evaluation.fidelity import Estimate, Score
from models.evaluation.life_cycle import Curve, LifeCycle, Walk
from models.training.diagnostics import image_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"short": "#0072b2", "mid": "#009e73", "long": "#d55e00"}  # told apart by colour-blind readers (Okabe, Ito)
LINES = {"noise": "--"}
"""Solid from a model's own start, dashed from noise."""
SHOWN = 16
"""Chains in each cell of the sheet."""


def plot_life_cycle(result: LifeCycle, network: str, path: Path) -> None:
    """Fréchet distance, KID and energies of every curve against steps, as PNG; lifetimes in learning as marks below.

    Args:
        network: whose scores are shown, by the name that stands in them.
    """
    # The object interface: pyplot keeps global state and wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(13, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    frechet, kernel, energies = figure.subplots(1, 3)
    _plot_scores(frechet, result, f"FD-{network}")
    frechet.set_yscale("log")
    frechet.set_title(f"FD-{network} (log scale)")
    frechet.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)))
    frechet.yaxis.set_major_formatter(ScalarFormatter())
    frechet.yaxis.set_minor_formatter(NullFormatter())
    _plot_scores(kernel, result, f"KID-{network}")
    kernel.set_yscale("symlog", linthresh=_largest_error(result, f"KID-{network}"))
    _plot_energies(energies, result)
    for axis in (frechet, kernel, energies):
        _steps_below(axis, result)
    figure.legend(*frechet.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(path, dpi=200)


def plot_sheet(walks: Sequence[Walk], path: Path) -> None:
    """The first chains of each model and start, a row, at each step, a column, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [(each.record.name, start, snapshots) for each in walks for start, snapshots in each.snapshots.items()]
    columns = max(len(snapshots) for _, _, snapshots in rows)
    figure = Figure(figsize=(1.35 * columns, 1.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for line, (model, start, snapshots) in zip(axes, rows, strict=True):
        line[0].set_ylabel(f"{model}, from {start}", fontsize="small")
        for axis, snapshot in zip(line, snapshots, strict=False):
            axis.imshow(image_grid(snapshot.states[:SHOWN], columns=4))
            axis.set_title(f"{snapshot.step:,}", fontsize="small")
    figure.savefig(path, dpi=150)


def _plot_scores(axis: "Axes", result: LifeCycle, name: str) -> None:
    for curve in result.curves:
        _line(axis, result, curve, [_score(point.scores, name).samples for point in curve.points])
    noisy = _score(result.noisy_data, name)
    axis.axhline(noisy.floor.value, color="black", linewidth=0.8, label="training images")
    axis.axhline(noisy.samples.value, color="black", linewidth=0.8, linestyle=":", label="with learning's noise")
    axis.set_title(name)


def _plot_energies(axis: "Axes", result: LifeCycle) -> None:
    data = {model.name: model.data_energies for model in result.models}
    for curve in result.curves:
        own = data[curve.model]
        heights = [Estimate(value=(point.energies.mean - own.mean) / own.standard_deviation) for point in curve.points]
        _line(axis, result, curve, heights)
    axis.axhspan(-1, 1, color="black", alpha=0.1, linewidth=0)
    axis.axhline(0.0, color="black", linewidth=0.8)
    axis.set_yscale("symlog", linthresh=2.0)
    axis.set_title("mean U above that of data, in the data's sd")


def _line(axis: "Axes", result: LifeCycle, curve: Curve, values: Sequence[Estimate]) -> None:
    steps = [point.step or _start_place(result) for point in curve.points]
    errors = [each.standard_error or 0.0 for each in values]
    axis.errorbar(
        steps,
        [each.value for each in values],
        yerr=errors if any(errors) else None,
        color=COLOURS[curve.model],
        linestyle=LINES.get(curve.start, "-"),
        marker="o",
        markersize=3,
        linewidth=1.2,
        elinewidth=0.6,
        label=f"{curve.model}-run from {curve.start}",
    )


def _steps_below(axis: "Axes", result: LifeCycle) -> None:
    """A log axis whose leftmost place is step 0, and each model's lifetime in learning as a mark on it."""
    axis.set_xscale("log")
    first = _start_place(result)
    for model in result.models:
        axis.plot(
            max(model.lifetime, first), 0.02, "^", color=COLOURS[model.name], transform=axis.get_xaxis_transform()
        )
    powers = _powers(result.measuring.steps)
    axis.set_xticks([first, *powers], ["0", *(f"{step:,}" for step in powers)])
    axis.minorticks_off()
    axis.set_xlabel("Langevin steps (marks: lifetime in learning)")


def _start_place(result: LifeCycle) -> float:
    return min(result.measuring.steps) / 3


def _powers(steps: Sequence[int]) -> list[int]:
    """The powers of ten among the steps, or all of them where none is."""
    return [step for step in steps if str(step).strip("0") == "1"] or list(steps)


def _score(scores: Sequence[Score], name: str) -> Score:
    return next(each for each in scores if each.name == name)


def _largest_error(result: LifeCycle, name: str) -> float:
    """Below it, KID is as good as zero."""
    found = [_score(point.scores, name).samples for curve in result.curves for point in curve.points]
    return max(each.standard_error or 0.0 for each in found)
