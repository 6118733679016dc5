"""Accuracy against one quantity at a time: budget and effort, margins, classes."""

from attacks_eval.evaluation import Curve, Evaluation
from attacks_eval.report import plots
from attacks_eval.report.words import INTERVALS, counted, share
from models.pages.document import Block, Cell, Figure, Figures, Section, Table, Text, absent
from models.pages.document import row as make_row
from models.pages.document import table as make_table
from models.pages.wording import DASH, plural, signed

LARGEST_MATRIX = 20
CURVES = {
    "budget": "Accuracy against budget",
    "attack_steps": "Accuracy against the attack's steps",
    "eot": "Accuracy against EOT replicates",
    "langevin_steps": "Accuracy against Langevin steps",
}


def curves(evaluation: Evaluation) -> Section:
    """Accuracy against one quantity each; what was not run is said."""
    drawn = [curve for curve in evaluation.curves if curve.points]
    missing = [title for name, title in CURVES.items() if name not in {curve.name for curve in drawn}]
    blocks: list[Block] = []
    if drawn:
        blocks.append(Figures(tuple(_curve(f"curve{index}", curve) for index, curve in enumerate(drawn))))
    if missing:
        blocks.append(Text(f"Not run: {'; '.join(missing)}.", "quiet"))
    return Section("curves", "Accuracy against budget and effort", tuple(blocks))


def _curve(name: str, curve: Curve) -> Figure:
    names = plots.keys(curve)
    timed = any(point.seconds_per_image is not None for point in curve.points)
    rows, said = [], []
    for point in curve.points:
        found = [share(point.accuracies[key]) if key in point.accuracies else DASH for key in names]
        said.append(f"at {point.x:g} " + ", ".join(f"{key} {each}" for key, each in zip(names, found, strict=True)))
        if timed:
            found.append(DASH if point.seconds_per_image is None else f"{point.seconds_per_image:.3g} s")
        rows.append(make_row(f"{point.x:g}", *found))
    head = (curve.x_label, *names, *(["time an image"] if timed else []))
    numbers = make_table("The same in numbers", head, rows, folded=True)
    caption = f"{curve.title}: {curve.note}. On {plural(curve.images, 'image')}; bands are 95 % intervals."
    return Figure(plots.curve(name, curve), caption, f"{curve.title}: {'; '.join(said)}", numbers)


def margins(evaluation: Evaluation) -> Section:
    """How far from flipping the answers are."""
    found = {key: sorted(values) for key, values in evaluation.margins.items() if values}
    if not found:
        return absent("margins", "Margins", "no margins were recorded")
    rows = []
    for key, values in found.items():
        quartiles = (values[round(part * (len(values) - 1))] for part in (0.25, 0.5, 0.75))
        wrong = sum(value < 0 for value in values)
        rows.append(make_row(key, str(len(values)), str(wrong), *(signed(value, 2) for value in quartiles)))
    head = ("images", "count", "below 0", "lower quartile", "median", "upper quartile")
    numbers = make_table("The same in numbers", head, rows)
    alt = "; ".join(f"{each.cells[0].text}: median {each.cells[4].text}, {each.cells[2].text} below 0" for each in rows)
    caption = "Mean-logit margins of the clean images, and of the adversarial image that was kept for each."
    figure = Figure(plots.margins("margins", found), caption, alt, numbers)
    return Section("margins", "Margins, clean and under attack", (Figures((figure,)),))


def classes(evaluation: Evaluation) -> Section:
    """Accuracy of each class and what its broken images are taken for."""
    if not evaluation.classes:
        return absent("classes", "Classes", "no accuracies of single classes were recorded")
    rows = []
    for each in sorted(evaluation.classes, key=lambda each: (each.robust.accuracy, each.name)):
        mistaken = sorted(each.mistaken_for.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
        names = ", ".join(f"{name} ({count})" for name, count in mistaken) or DASH
        rows.append(make_row(each.name, counted(each.robust), counted(each.clean), names))
    head = ("class", "worst case", "clean", "broken images taken for")
    blocks: list[Block] = [make_table(f"Classes, the worst first. {INTERVALS}", head, rows)]
    if evaluation.confusion:
        blocks.append(_confusion(evaluation))
    return Section("classes", "Classes", tuple(blocks))


def _confusion(evaluation: Evaluation) -> Table:
    names, matrix = evaluation.class_names, evaluation.confusion
    if len(names) > LARGEST_MATRIX:
        pairs = [(count, i, j) for i, line in enumerate(matrix) for j, count in enumerate(line) if i != j and count]
        pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
        rows = [make_row(names[i], names[j], str(count)) for count, i, j in pairs[:LARGEST_MATRIX]]
        return make_table("The most frequent confusions under attack", ("true", "answered", "images"), rows)
    rows = []
    for name, line in zip(names, matrix, strict=True):
        total = max(sum(line), 1)
        cells = [Cell(str(count) if count else "·", "" if count else "quiet", shade=count / total) for count in line]
        rows.append(make_row(name, *cells))
    caption = "Answers under attack: a row for each true class, a column for each answer, the worst case of each image"
    return make_table(caption, ("true class", *names), rows)
