"""What a run's page says under each heading."""

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from models.pages.document import Block, Code, Figure, Figures, Gallery, Picture, PictureRow, Section, Text, row, table
from models.pages.wording import plural, signed
from models.training import page_figures
from models.training.diagnostics import MAX_LAG, Series, correlation, scaled
from models.training.diagnostics_ages import AgeMix, age_mixes
from models.training.diagnostics_verdict import RULE
from models.training.page_fidelity import read_fidelity
from models.training.page_pictures import PICTURES, read_picture
from models.training.page_state import Lines, RunState


def column(lines: Lines, key: str) -> Series:
    """One logged quantity."""
    return np.array([line[key] for line in lines])


def gap_figure(run: RunState) -> Figure:
    """The energy gap with its zero line."""
    gaps = column(run.lines, "energy_gap")
    svg = page_figures.trace("gap", column(run.lines, "update"), {"energy gap d": gaps}, run.rate_steps, zero=True)
    caption = (
        f"Energy gap d = (mean f(positives) \N{MINUS SIGN} mean f(negatives)){_unit(run)} at every update: means, "
        "within a band from lowest to highest. Dotted: steps of the learning rate."
    )
    return Figure(svg, caption, f"Energy gap: mean {signed(gaps.mean(), 3)}, from {gaps.min():.3g} to {gaps.max():.3g}")


def traces(run: RunState) -> Section:
    """The other logged series."""
    figures = []
    if run.lines:
        positives = column(run.lines, "energy_positives")
        both = {"positives": positives, "negatives": positives - column(run.lines, "energy_gap")}
        svg = page_figures.trace("energies", column(run.lines, "update"), both, run.rate_steps)
        mean = f"Mean f{_unit(run)} of positives and negatives."
        figures.append(_described(svg, f"{mean} {_FREE if _unit(run) else _KEPT_SMALL}", both))
    for key, (title, what) in _TRACES.items():
        lines = [line for line in [*run.warm_up, *run.lines] if key in line]
        if lines:
            values = {title: column(lines, key)}
            steps = run.rate_steps if "energy_gap" in lines[0] else []
            svg = page_figures.trace(key, column(lines, "update"), values, steps)
            figures.append(_described(svg, f"{title}: {what}", values))
    blocks: tuple[Block, ...] = (Figures(tuple(figures)),) if figures else (Text("Nothing is logged yet.", "quiet"),)
    return Section("traces", "Energies, drift and losses", blocks)


def _unit(run: RunState) -> str:
    """What the log divides energies by."""
    return "" if run.recipe.implicit_run is not None else " / T"


_FREE = "Only differences mean something."
_KEPT_SMALL = "The objective keeps both near 0."
_TRACES = {
    "drift_norm": ("Drift length r", "L2 length of the gradient half of a Langevin step, mean over steps and chains."),
    "generator_loss": ("Generator loss", "squared L2 distance of G(z) from where its chains came to, an image's."),
    "warm_start_loss": ("Warm start loss", "denoising score matching, 1 for a flat energy."),
}


def correlations(run: RunState) -> Section:
    """Auto- and cross-correlations of the two series, over the verdict's own updates."""
    lines = run.window
    if len(lines) <= 2 * MAX_LAG:
        text = f"Too early: {plural(len(lines), 'update')}, of at least {2 * MAX_LAG + 1}."
        return Section("correlations", "Correlations", (Text(text, "quiet"),))
    d, r = scaled(lines)
    first, last = (int(lines[index]["update"]) for index in (0, -1))
    auto = {"d": correlation(d, d)[MAX_LAG:], "r": correlation(r, r)[MAX_LAG:]}
    alt = "; ".join(f"{name}: {each[1]:.2f} at lag 1, {each[-1]:.2f} at lag {MAX_LAG}" for name, each in auto.items())
    cross = correlation(d, r)
    at = int(np.argmax(np.abs(cross)))
    strongest = f"Gap at t with drift at t + lag: strongest at lag {at - MAX_LAG}, {signed(float(cross[at]), 2)}."
    figures = (
        Figure(page_figures.autocorrelations("auto", d, r), "Autocorrelations of gap and drift length.", alt),
        Figure(page_figures.crosscorrelation("cross", d, r), strongest, strongest),
    )
    text = (
        f"Updates {first:,} to {last:,}. The gap d is scaled to unit mean square and not centred, so that its "
        "autocorrelation stays up where d stays on one side of 0; the drift length r is standardised."
    )
    return Section("correlations", "Correlations", (Text(text), Figures(figures), Text(RULE, "quiet")))


def pictures(run: RunState) -> Section:
    """The last checkpoint's images."""
    found = {run.folder / f"{name}.png": f"{name.capitalize()}: {what}" for name, what in PICTURES.items()}
    rows = [
        PictureRow(said, (Picture(read_picture(path), f"Grid of {path.stem}"),))
        for path, said in found.items()
        if path.exists()
    ]
    none = Text("There are no pictures before the regime's first checkpoint.", "quiet")
    return Section("pictures", "What it sees and makes", (Gallery(("",), tuple(rows)) if rows else none,))


def ages(run: RunState) -> Section:
    """How old the chains are, and should be."""
    mixes = age_mixes(run.recipe, max(0, run.learned - 1))
    found = [name for name in mixes if name in run.ages]
    if not found:
        reason = "No chain persists" if not mixes else "There is no bank yet"
        return Section("ages", "Ages of chains", (Text(f"{reason}.", "quiet"),))
    figures = tuple(_ages(name, run, mixes[name], index) for index, name in enumerate(found))
    return Section("ages", "Ages of chains", (Figures(figures),))


def _ages(name: str, run: RunState, mix: AgeMix, index: int) -> Figure:
    held = run.ages[name].double().numpy()
    draws = run.learned * mix.drawn
    caption = f"{name.capitalize()}: {plural(len(held), 'chain')}, each drawn {draws:,.1f} times on average so far. "
    if mix.stationary(1) is None:
        caption += "By the recipe they grow older for ever."
    elif mix.limit is not None:
        caption += f"Drawn at age {mix.limit}, a chain starts again at {mix.first}."
    else:
        caption += f"A drawn chain restarts with chance {mix.restart:.3g}, and is of age {mix.first} then."
    alt = f"{name}: mean age {held.mean():.1f}, oldest {held.max():.0f}"
    return Figure(page_figures.ages(f"ages{index}", held, mix, run.learned), caption, alt)


def fidelity(run: RunState) -> Section:
    """What samples scored, where somebody measured it."""
    lines = sorted(read_fidelity(run.folder), key=lambda line: (line.name, line.count, line.update))
    if not lines:
        none = Text("Not measured. A result of `python -m models fidelity` is added by:", "quiet")
        how = Code(f"python -m models diagnose {run.folder} --fidelity RESULT.json")
        return Section("fidelity", "Fidelity", (none, how))
    figures: list[Figure] = []
    for (name, count), group in groupby(lines, key=lambda line: (line.name, line.count)):
        found = list(group)
        said = "; ".join(f"at {line.update:,} {line.value:.4g} (floor {line.floor:.4g})" for line in found)
        svg = page_figures.fidelity(f"fidelity{len(figures)}", found)
        figures.append(Figure(svg, f"{name}, {plural(count, 'image')}: {said}.", f"{name} {said}"))
    return Section("fidelity", "Fidelity", (Figures(tuple(figures)),))


def recipe(run: RunState) -> Section:
    """Every value of the recipe, and what was changed on the way."""
    changes = [row(f"{change['update']:,}", "; ".join(change["changed"])) for change in run.amendments]
    values = [row(key, value) for key, value in _flat(run.recipe.model_dump(mode="json"))]
    blocks: list[Block] = [table("Every value of the recipe", ("key", "value"), values, words=True, folded=True)]
    if changes:
        blocks.insert(0, table("Amendments: changes of the recipe", ("after update", "changed"), changes, words=True))
    return Section("recipe", "Recipe", tuple(blocks))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _described(svg: str, caption: str, lines: Mapping[str, Series]) -> Figure:
    alt = "; ".join(f"{name}: {values[0]:.4g} at first, {values[-1]:.4g} at last" for name, values in lines.items())
    return Figure(svg, caption, alt)
