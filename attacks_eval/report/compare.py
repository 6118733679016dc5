"""Two evaluations side by side: what differs, and whether it may be compared at all."""

from pathlib import Path

from attacks_eval.evaluation import Evaluation
from attacks_eval.report import plots
from attacks_eval.report.markdown import render_markdown
from attacks_eval.report.paired import Measure, difference_interval, measures, same_images
from attacks_eval.report.words import INTERVALS, counted, counting_attacks, points, preset, share, verdict
from attacks_eval.report.write import read_evaluation
from models.files import replace_file
from models.pages.canvas import BLUE, ORANGE
from models.pages.document import (
    Block,
    Cell,
    Document,
    Facts,
    Figure,
    Figures,
    Row,
    Section,
    Table,
    Text,
    Tone,
    row,
    table,
)
from models.pages.html import render_html
from models.pages.wording import DASH, MINUS, plural, settings, short


def write_comparison(folder_a: Path, folder_b: Path, out: Path) -> str:
    """Write the page to `out`; returns it as Markdown.

    Raises:
        ResultError: a result is missing or damaged; names the file and the key.
    """
    document = compare(read_evaluation(folder_a), read_evaluation(folder_b))
    replace_file(out, render_html(document).encode())
    return render_markdown(document)


def compare(a: Evaluation, b: Evaluation) -> Document:
    """The page; B is judged against A."""
    found = measures(a, b)
    worst = found[0]
    lead: list[Block] = [Text(said, "bad") for said in warnings(a, b)]
    lead += [Facts((("A", f"{_name(a)}. {verdict(a)}"), ("B", f"{_name(b)}. {verdict(b)}")))]
    lead += [Text(f"{INTERVALS} Red: B is worse than A.", "quiet"), _figure(found)]
    return Document(
        title=f"Robustness of {_name(a)} (A) and {_name(b)} (B)",
        tab=f"{points(worst.difference)} · {a.bundle_name} and {b.bundle_name}",
        number=points(worst.difference),
        tone="bad" if worst.difference < 0 else "good" if worst.difference > 0 and worst.significant else "quiet",
        headline=_headline(worst),
        lead=tuple(lead),
        sections=(
            Section("accuracies", "Accuracies", (_accuracies(found), *_unshared(a, b))),
            Section("same", "What is the same", (_sameness(a, b),)),
        ),
    )


def warnings(a: Evaluation, b: Evaluation) -> list[str]:
    """What forbids or weakens the comparison."""
    found = []
    if not same_images(a, b):
        found.append(
            "The images are not the same: differences hold chance in the choice of images too, and can not be paired."
        )
    if a.threat != b.threat:
        found.append(
            f"The threats differ: {a.threat.name} against {b.threat.name}; lower is no sign of a worse defence."
        )
    if a.plan != b.plan:
        same = a.weights == b.weights and a.preset == b.preset
        reading = "of the same defence, the lower worst case is the better estimate" if same else _PLANS
        found.append(f"The attacks differ (plans {a.plan_name} and {b.plan_name}): {reading}.")
    return found


_PLANS = "a defence that was attacked harder looks worse"


def _name(evaluation: Evaluation) -> str:
    return f"{evaluation.bundle_name}, preset {evaluation.preset_name}"


def _headline(worst: Measure) -> str:
    both = f"{share(worst.b)} in B against {share(worst.a)} in A"
    if worst.difference == 0:
        return f"The worst cases are equal: {both}."
    word = "worse" if worst.difference < 0 else "better"
    chance = "" if worst.significant else ", which may be chance"
    return f"B is {word} in the worst case: {both}{chance}. {_test(worst)}"


def _test(measure: Measure) -> str:
    if measure.p_value is not None:
        pair = f"only A has {plural(measure.only_a or 0, 'image')} right, only B {measure.only_b}"
        return f"Paired: {pair}; exact McNemar p = {measure.p_value:.3g}."
    low, high = difference_interval(measure.a, measure.b)
    return f"Not paired: 95 % interval of the difference {points(low)} to {points(high)}."


def _figure(found: list[Measure]) -> Figures:
    marks = []
    for measure in found:
        marks.append(plots.Mark(short(measure.title), measure.a, BLUE))
        marks.append(plots.Mark("", measure.b, ORANGE))
    alt = "; ".join(f"{each.title}: A {share(each.a)}, B {share(each.b)}" for each in found)
    return Figures((Figure(plots.intervals("comparison", marks), "A in blue, and below it B in orange.", alt),))


def _accuracies(found: list[Measure]) -> Table:
    head = ("measure", "A", "B", f"B {MINUS} A", "only A right", "only B right", "test")
    return table("Accuracies that both have", head, [_row(measure) for measure in found])


def _row(measure: Measure) -> Row:
    tone: Tone = "bad" if measure.difference < 0 else "good" if measure.difference > 0 else ""
    shown = Cell(points(measure.difference), tone)
    pairs = (DASH, DASH) if measure.only_a is None else (str(measure.only_a), str(measure.only_b))
    if measure.p_value is not None:
        test = f"McNemar p = {measure.p_value:.3g}"
    else:
        low, high = difference_interval(measure.a, measure.b)
        test = f"not paired, [{points(low).removesuffix(' points')}, {points(high).removesuffix(' points')}]"
    return row(measure.title, counted(measure.a), counted(measure.b), shown, *pairs, test)


def _unshared(a: Evaluation, b: Evaluation) -> list[Text]:
    """Attacks that only one of the two has."""
    found = []
    for name, mine, other in (("A", a, b), ("B", b, a)):
        theirs = {attack.name for attack in other.attacks}
        titles = [attack.title for attack in counting_attacks(mine) if attack.name not in theirs]
        if titles:
            found.append(Text(f"Only {name} was attacked with: {'; '.join(titles)}."))
    return found


def _sameness(a: Evaluation, b: Evaluation) -> Table:
    def facts(each: Evaluation) -> dict[str, str]:
        return {
            "data": each.data,
            "first image": f"{each.first:,}",
            "images": f"{each.images:,}",
            "threat": each.threat.name,
            "plan": f"{each.plan_name}: {settings(each.plan)}",
            "seed": str(each.seed),
            "preset": f"{each.preset_name}: {preset(each)}",
            "bundle": each.bundle,
            "weights": each.weights,
            "commit": each.commit,
            "torch": each.torch,
            "device": each.device,
            "command": each.command,
        }

    mine, theirs = facts(a), facts(b)
    rows = []
    for key, value in mine.items():
        same = value == theirs[key]
        mark = Cell("same") if same else Cell("differs", "warning")
        rows.append(row(key, mark, value, "as A" if same else theirs[key]))
    return table("What was asked", ("key", "in both", "A", "B"), rows, words=True)
