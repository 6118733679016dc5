"""`result.json` and `adv.npz` to `report.html` and `report.md`."""

import json
from pathlib import Path

from attacks_eval.errors import ResultError
from attacks_eval.evaluation import Evaluation
from attacks_eval.report import accuracies, evidence, sections, words
from attacks_eval.report.gallery import AdversarialImages, read_adversarial
from attacks_eval.report.markdown import render_markdown
from models.config import validate
from models.errors import ConfigError
from models.files import replace_file
from models.pages.document import Block, Document, Text
from models.pages.html import render_html
from models.pages.wording import percent, plural


def write_report(folder: Path) -> None:
    """Read FOLDER/result.json, and FOLDER/adv.npz when there is one; write FOLDER/report.html and FOLDER/report.md.

    Raises:
        ResultError: a file is missing or damaged; names it and the key.
    """
    document = build_report(read_evaluation(folder), read_adversarial(folder / "adv.npz"))
    replace_file(folder / "report.html", render_html(document).encode())
    replace_file(folder / "report.md", render_markdown(document).encode())


def read_evaluation(folder: Path) -> Evaluation:
    """FOLDER/result.json; raises ResultError that names the file and the key that is wrong."""
    path = folder / "result.json"
    try:
        evaluation = validate(Evaluation, json.loads(path.read_bytes()), str(path))
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror}") from error
    except ConfigError as error:
        raise ResultError(str(error)) from error
    except ValueError as error:
        raise ResultError(f"{path} is not JSON: {error}") from error
    _check_classes(evaluation, path)
    return evaluation


def _check_classes(evaluation: Evaluation, path: Path) -> None:
    """Raise ResultError unless labels and matrix fit the class names."""
    count = len(evaluation.class_names)
    for index, result in enumerate(evaluation.image_results):
        answered = [result.label, *(found.label for found in (result.clean, result.worst) if found)]
        if not all(0 <= label < count for label in answered):
            raise ResultError(f"{path}: image_results.{index} has labels {answered}; there are {count} class_names")
    widths = {len(evaluation.confusion), *map(len, evaluation.confusion)}
    if evaluation.confusion and widths != {count}:
        raise ResultError(f"{path}: confusion is not {count} by {count}, the number of class_names")


def build_report(evaluation: Evaluation, images: AdversarialImages | None) -> Document:
    """The page, worst news first."""
    worst = evaluation.worst_case
    number = percent(worst.accuracy) if words.counting_attacks(evaluation) else "not attacked"
    return Document(
        title=f"Robustness of {evaluation.bundle_name}",
        tab=f"{number} · robustness of {evaluation.bundle_name}",
        number=number,
        headline=words.verdict(evaluation),
        lead=tuple(_lead(evaluation)),
        sections=(
            sections.header(evaluation),
            sections.attacks(evaluation),
            sections.waterfall(evaluation),
            sections.questions(evaluation),
            accuracies.curves(evaluation),
            accuracies.margins(evaluation),
            accuracies.classes(evaluation),
            evidence.certification(evaluation),
            evidence.detection(evaluation),
            evidence.checklist(evaluation),
            evidence.indicators(evaluation),
            evidence.pictures(evaluation, images),
            evidence.reproduce(evaluation),
            evidence.glossary(),
        ),
    )


def _lead(evaluation: Evaluation) -> list[Block]:
    """What must be read with the verdict."""
    blocks: list[Block] = []
    fired = [each.title for each in evaluation.indicators if each.fired]
    if fired:
        blocks.append(
            Text(
                f"To weigh before trusting this number, {plural(len(fired), 'sign')} fired: {'; '.join(fired)}.",
                "bad",
            )
        )
    if (alone := words.bpda_alone(evaluation)) is not None:
        blocks.append(Text(alone, "warning"))
    blocks.append(Text(words.caveat(evaluation), "quiet"))
    blocks.append(sections.overview(evaluation))
    if evaluation.gradient_note:
        blocks.append(Text(f"The purifier's gradients: {evaluation.gradient_note}"))
    blocks += [Text(f"Note: {note}") for note in evaluation.notes]
    return blocks
