"""The rows side by side: a table in Markdown and one plot, written from what was measured."""

from collections.abc import Sequence
from pathlib import Path

from attacks_eval.shares import Share, share
from attacks_eval.strength.measure import RADII, Row

COLUMNS = {
    "transfer": ("transfer-bare",),
    "BPDA": ("bpda-pgd",),
    "true gradient": ("smooth-pgd", "full-pgd"),
    "then Auto-PGD": ("smooth-apgd-t", "full-apgd-t", "smooth-apgd", "full-apgd"),
    "then Square": ("square",),
}
"""Attacks, and the names that they have by what the true gradient of a defence is; `then` is on what is left."""


NAMED = 6
"""At most so many rows have their names beside them in a plot, and not in its legend."""


def markdown(rows: Sequence[Row]) -> str:
    """One line a candidate, in the order given; every share with its Wilson 95 % interval."""
    radii = [f"certified {radius:g}" for radius in RADII]
    header = ["candidate", "clean", *COLUMNS, "worst case", "by vote", "weakest to", *radii, "s an answer", "signs"]
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join([*lines, "", *(f"- **{row.candidate.name}**: {row.candidate.about}" for row in rows)])


def _cells(row: Row) -> list[str]:
    shares = [next((row.held[name] for name in names if name in row.held), None) for names in COLUMNS.values()]
    certified = [row.certified.get(f"{radius:g}") for radius in RADII]
    return [
        row.candidate.name,
        _shown(row.clean) + _refusing(row.answered),
        *map(_shown, shares),
        f"**{_shown(right_at_worst(row))}**" + _refusing(row.worst_answered),
        _shown(row.worst_vote),
        row.worst_attack,
        *map(_shown, certified),
        f"{row.seconds_an_answer:.2f}",
        "; ".join(row.warnings) or "none",
    ]


def right_at_worst(row: Row) -> Share:
    """Right answers to the strongest images: what was refused is held, and is no right answer."""
    refused = 0 if row.worst_answered is None else row.worst_answered.total - row.worst_answered.correct
    return share(row.worst.correct - refused, row.worst.total)


def _refusing(answered: Share | None) -> str:
    return "" if answered is None else f"; {100 * answered.accuracy:.0f} answered"


def _shown(share: Share | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share.accuracy:.0f} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Clean accuracy against the worst case, a cross of intervals a candidate, as PNG."""
    # The object interface: pyplot keeps global state and wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for row in rows:
        clean, worst = row.clean, right_at_worst(row)
        axis.errorbar(
            100 * clean.accuracy,
            100 * worst.accuracy,
            xerr=[[100 * (clean.accuracy - clean.low)], [100 * (clean.high - clean.accuracy)]],
            yerr=[[100 * (worst.accuracy - worst.low)], [100 * (worst.high - worst.accuracy)]],
            fmt="s" if row.candidate.chain.num_steps == 0 else "o",
            alpha=0.8,
            linewidth=0.6,
            label=row.candidate.name,
        )
        if len(rows) <= NAMED:
            axis.annotate(row.candidate.name, (100 * clean.accuracy + 1, 100 * worst.accuracy + 1))
    axis.set_xlabel("right when clean (%)")
    axis.set_ylabel("right under every attack of the plan (%)")
    axis.set_xlim(0, 100)
    axis.set_ylim(0, 100)
    axis.set_title("Intervals are Wilson's at 95 %. Circles: purified; squares: the classifier alone", fontsize="small")
    if len(rows) > NAMED:
        axis.legend(fontsize="x-small", ncols=2)
    figure.savefig(path, dpi=130)
