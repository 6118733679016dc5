"""RUN/diagnostics.html: how a training goes, on one page that needs no other file."""

from collections.abc import Sequence
from pathlib import Path

from models.files import replace_file
from models.pages.document import Block, Document, Facts, Figures, Text, Tone
from models.pages.html import render_html
from models.pages.wording import duration, plural, settings, signed
from models.training import page_sections as sections
from models.training.diagnostics_verdict import Stability, stability
from models.training.page_schedule import TONES, schedule
from models.training.page_state import RunState
from models.training.run import State

SENTENCES = {
    "oscillating": "the energy gap swings around 0: learning and its chains keep pace with each other.",
    "expanding": "the energy gap stays below 0: chains do not reach energies as low as the data's, and learning makes "
    "energies steeper. Where that does not end, take more Langevin steps or a lower learning rate.",
    "contracting": "the energy gap stays above 0: chains find lower energies than the data's, and learning makes "
    "energies flatter. Where that does not end, the chains' noise drowns what the energy knows.",
    "too early to tell": "whether the energy gap will swing around 0 can not be said yet.",
}


def write_page(folder: Path, checkpoint: State, metrics: Sequence[dict[str, float]]) -> None:
    """Write the page of the run in `folder`, from its checkpoint's contents and all that it logged.

    Raises:
        ConfigError: the recipe is of another kind, or an older form.
        DataError: `fidelity.jsonl` has a line that is not a result.
    """
    page = build_page(RunState.of(folder, checkpoint, metrics))
    replace_file(folder / "diagnostics.html", render_html(page).encode())


def build_page(run: RunState) -> Document:
    """The page, verdict first."""
    verdict = stability(sections.column(run.window, "energy_gap"))
    lead: list[Block] = [_facts(run)]
    if verdict.grows:
        lead.insert(0, Text(f"The gap's size grew {verdict.growth:.1f}-fold over these updates.", "warning"))
    if run.lines:
        lead.append(Figures((sections.gap_figure(run),)))
    return Document(
        title=f"Training of {run.folder.resolve().name}",
        tab=f"{verdict.word} · {run.folder.resolve().name}",
        number=verdict.word,
        headline=_headline(run, verdict),
        lead=tuple(lead),
        sections=(
            sections.traces(run),
            sections.correlations(run),
            schedule(run),
            sections.pictures(run),
            sections.ages(run),
            sections.fidelity(run),
            sections.recipe(run),
        ),
        tone=_tone(verdict),
    )


def _tone(verdict: Stability) -> Tone:
    return "warning" if verdict.grows else TONES[verdict.word]


def _headline(run: RunState, verdict: Stability) -> str:
    if not run.window:
        return f"After {plural(run.update, 'update')} the regime has not begun."
    first, last = (int(run.window[index]["update"]) for index in (0, -1))
    numbers = f"offset {signed(verdict.offset, 2)}, {plural(verdict.swings, 'swing')}"
    return f"Over updates {first:,} to {last:,} {SENTENCES[verdict.word]} ({numbers})"


def _facts(run: RunState) -> Facts:
    recipe, learning = run.recipe, run.recipe.learning
    total = run.first + learning.updates
    warm = f", {run.first:,} of them warm start" if run.first else ""
    bank = f"bank of {learning.bank_size:,}" if learning.bank_size else "all start anew"
    return Facts(
        (
            ("recipe", f"{recipe.regime} on {recipe.data.name}, network {recipe.network.name}, seed {recipe.seed}"),
            ("updates", f"{run.update:,} of {total:,}{warm}"),
            ("CPU time", f"{duration(run.cpu_seconds)} ({run.cpu_seconds / 3600:.2f} CPU hours)"),
            ("chains", f"{learning.batch_size} an update, from {recipe.initialiser.kind}; {bank}"),
            ("sampler", settings(recipe.sampler.model_dump(exclude_none=True))),
            ("amendments", f"{len(run.amendments)}, below" if run.amendments else "none"),
        )
    )
