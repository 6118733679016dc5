"""The stages that a run's schedules cut it into, and how learning went in each."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from models.pages.document import Cell, Row, Section, Tone, row, table
from models.pages.wording import DASH, signed
from models.training.diagnostics import WINDOW
from models.training.diagnostics_verdict import Word, stability
from models.training.page_state import RunState
from models.training.schedules import changes, value_at
from models.training.sections import FromGenerator, Restarting

TONES: dict[Word, Tone] = {
    "oscillating": "good",
    "expanding": "warning",
    "contracting": "warning",
    "too early to tell": "quiet",
}


@dataclass(frozen=True)
class Stage:
    """Updates `after` + 1 .. `last` of a run, between which no scheduled value changes; `settings` as text."""

    after: int
    last: int
    settings: dict[str, str]


def stages(run: RunState) -> list[Stage]:
    """Every stage of the regime, those to come included."""
    learning, initialiser = run.recipe.learning, run.recipe.initialiser
    schedules = {"learning rate": learning.learning_rates}
    if isinstance(initialiser, FromGenerator):
        schedules["generator's rate"] = initialiser.learning_rates
    if isinstance(learning, Restarting) and learning.rejuvenation_prob is not None:
        schedules["restart chance"] = learning.rejuvenation_prob
    schedules["Langevin steps"] = learning.num_steps or ((0, run.recipe.sampler.num_steps),)
    points = {change for schedule in schedules.values() for change in changes(schedule) if change < learning.updates}
    bounds = [0, *sorted(points), learning.updates]
    return [
        Stage(
            run.first + begin,
            run.first + end,
            {name: f"{value_at(schedule, begin):g}" for name, schedule in schedules.items()},
        )
        for begin, end in pairwise(bounds)
    ]


def schedule(run: RunState) -> Section:
    """A row for each stage."""
    found = stages(run)
    head = ("updates", *found[0].settings, "state", "mean gap", "mean drift", "offset", "verdict")
    caption = f"Stages of the schedules, each judged alone by its last {WINDOW:,} updates"
    return Section("schedule", "Schedule", (table(caption, head, [_row(run, stage) for stage in found]),))


def _row(run: RunState, stage: Stage) -> Row:
    lines = [line for line in run.lines if stage.after < line["update"] <= stage.last][-WINDOW:]
    state = "to come" if run.update <= stage.after else "now" if run.update < stage.last else "done"
    cells = [f"{stage.after + 1:,} {DASH} {stage.last:,}", *stage.settings.values(), state]
    if not lines:
        return row(*cells, DASH, DASH, DASH, DASH)
    gaps = np.array([line["energy_gap"] for line in lines])
    drift = float(np.mean([line["drift_norm"] for line in lines]))
    verdict = stability(gaps)
    numbers = (signed(float(gaps.mean()), 3), f"{drift:.3g}", signed(verdict.offset, 2))
    return row(*cells, *numbers, Cell(verdict.word, TONES[verdict.word]))
