"""What the attacks did: the header, the attack table, which attack was needed, and after how many questions."""

from collections.abc import Sequence

from attacks_eval.evaluation import AttackResult, Evaluation
from attacks_eval.report import plots
from attacks_eval.report.words import INTERVALS, counted, counting_attacks, interval, preset, share
from attacks_eval.shares import Statistics
from attacks_eval.shares import share as share_of
from models.pages.canvas import BLUE, ORANGE, RED
from models.pages.document import (
    Block,
    Cell,
    Facts,
    Figure,
    Figures,
    Row,
    RowGroup,
    Section,
    Table,
    Text,
    absent,
)
from models.pages.document import row as make_row
from models.pages.document import table as make_table
from models.pages.wording import DASH, amount, duration, percent, plural, settings, short

ATTACK_HEAD = (
    "attack",
    "on images",
    "mean logits",
    "vote",
    "ten of ten",
    "one draw",
    "served",
    "undecided",
    "median queries to break",
    "only it broke",
    "broke first",
    "left after",
    "image-steps",
    "time",
)


def overview(evaluation: Evaluation) -> Figures:
    """Worst case, every attack that was run on all images, and clean, as one picture."""
    marks = [plots.Mark("worst case of all", evaluation.worst_case, RED)]
    alone = [attack for attack in counting_attacks(evaluation) if attack.on == "all"]
    alone.sort(key=lambda attack: attack.statistics.mean_logit.accuracy)
    marks += [plots.Mark(short(attack.title), attack.statistics.mean_logit, ORANGE) for attack in alone]
    marks.append(plots.Mark("clean", evaluation.clean.mean_logit, BLUE))
    caption = "What each attack alone leaves right: the weaker the attack, the better the defence looks."
    alt = "; ".join(f"{mark.label} {share(mark.share)}" for mark in marks)
    return Figures((Figure(plots.intervals("overview", marks), caption, alt),))


def header(evaluation: Evaluation) -> Section:
    """What was attacked, how and with what."""
    last = evaluation.first + evaluation.images - 1
    judged = max((result.clean.draws for result in evaluation.image_results), default=0)
    pairs = [
        ("Threat", f"{evaluation.threat.name}, untargeted"),
        ("Images", f"{evaluation.data}, test images {evaluation.first:,} to {last:,}"),
        ("Defence", f"{evaluation.bundle_name}, preset {evaluation.preset_name}"),
        ("Preset", preset(evaluation)),
        ("Verdict", f"the mean logits of up to {plural(judged, 'replicate')} on noise that no attack has seen"),
        ("Worst case, rounded", f"{counted(evaluation.worst_case_rounded)}: each worst image, judged afresh"),
        *((f"Without the purifier, {key}", counted(found)) for key, found in evaluation.bare.items()),
        ("Plan", f"{evaluation.plan_name}, seed {evaluation.seed}"),
        ("Bundle", evaluation.bundle),
        ("Weights", evaluation.weights),
        ("Cost", f"{amount(evaluation.image_steps)} image-steps forward, {amount(evaluation.backward_steps)} backward"),
        ("Wall time", duration(evaluation.seconds)),
        ("Device", evaluation.device),
        ("Software", f"torch {evaluation.torch}, commit {evaluation.commit}"),
    ]
    return Section("facts", "What was measured", (Facts(tuple((term, what) for term, what in pairs if what)),))


def attacks(evaluation: Evaluation) -> Section:
    """The attack table, the clean row first, checks on frozen noise apart; and every attack's settings."""
    counting = counting_attacks(evaluation)
    checks = [attack for attack in evaluation.attacks if attack.fixed_randomness]
    clean = make_row("clean", str(evaluation.images), *_rules(evaluation.clean), *[DASH] * 6)
    groups = [RowGroup("", (clean, *(_attack_row(attack) for attack in counting)))]
    if checks:
        title = "Checks with the defence's noise frozen: not part of the worst case"
        groups.append(RowGroup(title, tuple(_attack_row(attack) for attack in checks)))
    caption = f"Images of {evaluation.images} that stay right under each rule. {INTERVALS}"
    blocks: list[Block] = [Table(caption, ATTACK_HEAD, tuple(groups)), Text(_RULES, "quiet")]
    if not counting:
        blocks.insert(0, Text("No attack was run.", "warning"))
    rows = [make_row(_heading(attack), settings(attack.configuration)) for attack in evaluation.attacks]
    blocks.append(make_table("Every setting of every attack", ("attack", "settings"), rows, words=True, folded=True))
    return Section("attacks", "Attacks", tuple(blocks))


_RULES = (
    "Mean logits decide the verdict. Vote: most single draws are right. Ten of ten: right in each of ten draws, for an "
    "attacker who may try again. One draw and served: expected accuracy of one draw, and of one answer as the service "
    "averages it. Compare each column with its clean row. A row on survivors counts images that fell to the attacks "
    "above it as wrong."
)


def _rules(statistics: Statistics) -> tuple[str | Cell, ...]:
    shares = (
        Cell(percent(each.accuracy), detail=interval(each))
        for each in (statistics.mean_logit, statistics.vote, statistics.ten)
    )
    return (*shares, percent(statistics.single), percent(statistics.served), str(statistics.undecided))


def _attack_row(attack: AttackResult) -> Row:
    on = Cell(str(attack.attacked), detail="" if attack.on == "all" else "survivors")
    broke = DASH if attack.median_queries is None else f"{attack.median_queries:g}"
    counts = (DASH,) * 3 if attack.fixed_randomness else (str(attack.unique), str(attack.first), str(attack.left))
    back = f"+ {amount(attack.backward_steps)} back" if attack.backward_steps else ""
    cost = (Cell(amount(attack.image_steps), detail=back), duration(attack.seconds))
    median = Cell(broke, detail=f"of {attack.queries:,}")
    return make_row(_heading(attack), on, *_rules(attack.statistics), median, *counts, *cost)


def _heading(attack: AttackResult) -> Cell:
    return Cell(attack.title, detail=f"({attack.name}, {attack.knowledge})")


def waterfall(evaluation: Evaluation) -> Section:
    """Which attack broke images that the attacks above it had not."""
    counting = counting_attacks(evaluation)
    if not counting:
        return absent("waterfall", "Which attack was needed", "no attack was run")
    total, clean = evaluation.images, evaluation.clean.mean_logit.correct
    rows = [make_row("clean", DASH, str(clean), share(evaluation.clean.mean_logit))]
    rows += [
        make_row(attack.title, str(attack.first), str(attack.left), share(share_of(attack.left, total)))
        for attack in counting
    ]
    numbers = make_table(
        "The worst case, attack by attack", ("attack", "broke first", "left", "worst case so far"), rows
    )
    alt = ", ".join(f"{attack.title} breaks {attack.first} more and leaves {attack.left}" for attack in counting)
    alt = f"Of {total} images {clean} are right when clean; {alt}."
    caption = "Each bar starts from what the attacks above it left; in red, what this attack was the first to break."
    figure = Figure(plots.waterfall("waterfall", total, clean, counting), caption, alt, numbers)
    return Section("waterfall", "Which attack was needed", (Figures((figure,)),))


def questions(evaluation: Evaluation) -> Section:
    """Accuracy against attack steps: whether more of them would have broken more."""
    title, counting = "Accuracy against attack steps", counting_attacks(evaluation)
    if not counting:
        return absent("questions", title, "no attack was run")
    total = evaluation.images
    rows = []
    for attack in counting:
        asked, left = plots.steps(attack)
        rows.append(
            make_row(attack.title, *(percent(_at(asked, left, part, attack) / total) for part in (0, 0.1, 0.5, 1)))
        )
    head = ("attack", "at first", "after 10 %", "after half", "after all its questions")
    numbers = make_table("The same in numbers", head, rows)
    caption = (
        f"Of all {total} images. A line that still falls at its end would fall further with more questions. An image "
        "counts as broken once that is beyond the noise of the draws, so a line may end above the attack's row."
    )
    alt = "; ".join(f"{attack.title} ends at {percent(plots.steps(attack)[1][-1] / total)}" for attack in counting)
    figure = Figure(plots.questions("questions", total, counting), caption, alt, numbers)
    return Section("questions", title, (Figures((figure,)),))


def _at(asked: Sequence[int], left: Sequence[int], part: float, attack: AttackResult) -> int:
    """Images left after that part of the questions."""
    return [count for question, count in zip(asked, left, strict=True) if question <= part * attack.queries][-1]
