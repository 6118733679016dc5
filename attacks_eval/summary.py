"""From verdicts to an Evaluation: the worst case of each image, who broke what, classes, margins."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from torch import Tensor

from attacks_eval.evaluation import AttackResult, ClassRow, ImageResult
from attacks_eval.judge import Verdict
from attacks_eval.phases import Row
from attacks_eval.run import Run
from attacks_eval.shares import share, statistics_of


@dataclass(frozen=True)
class WorstCase:
    """The adversarial image that is kept of one task: by which row, its pixels, and its verdict when it was made."""

    row: Row
    image: Tensor
    verdict: Verdict


def counting(rows: Sequence[Row]) -> list[Row]:
    """The rows of the worst case: all but the checks with frozen noise."""
    return [row for row in rows if not row.fixed_randomness]


def worst_cases(run: Run, rows: Sequence[Row]) -> dict[int, WorstCase]:
    """For each attacked image, the candidate with the lowest margin for the defence, broken ones before others."""
    kept: dict[int, WorstCase] = {}
    for task in run.tasks:
        tried = [(row, row.finished[task.number].verdict) for row in rows if task.number in row.finished]
        if tried:
            row, verdict = min(tried, key=lambda pair: (pair[1].right, not pair[1].decided, pair[1].margin))
            kept[task.number] = WorstCase(row, run.kept(row.key, task.number), verdict)
    return kept


def attack_results(run: Run, rows: Sequence[Row], clean: Mapping[int, Verdict]) -> list[AttackResult]:
    """The attack table, in the order of the plan."""
    total, left = len(clean), {number for number, verdict in clean.items() if verdict.right}
    results = []
    for row in rows:
        others = set[int]().union(*(other.broken for other in counting(rows) if other is not row))
        first = row.broken & left if not row.fixed_randomness else set[int]()
        left = left - first
        verdicts = [each.verdict for each in row.finished.values()]
        steps = [each.broken_at for each in row.finished.values()]
        spent = run.ledger.spent(*row.key)
        to_break = [step for step in steps if step is not None]
        results.append(
            AttackResult(
                name=row.name,
                title=row.title,
                knowledge=row.knowledge,
                configuration=row.configuration,
                on=row.on,
                attacked=len(row.finished),
                statistics=statistics_of(verdicts, total),
                unique=len(row.broken - others) if not row.fixed_randomness else 0,
                first=len(first),
                left=len(left),
                median_queries=median(to_break) if to_break else None,
                broken_at=steps,
                queries=row.queries,
                image_steps=spent.image_steps,
                backward_steps=spent.backward_steps,
                seconds=round(spent.seconds, 1),
                fixed_randomness=row.fixed_randomness,
            )
        )
    return results


def image_results(
    run: Run,
    rows: Sequence[Row],
    clean: Mapping[int, Verdict],
    worst: Mapping[int, WorstCase],
    rounded: Mapping[int, Verdict],
) -> list[ImageResult]:
    """One record an image, in the order of the data."""
    results = []
    for task in run.tasks:
        number = task.number
        breakers = [row.name for row in counting(rows) if number in row.broken]
        kept = worst.get(number)
        distance = float(run.threat.distance(kept.image, task.image)) * 255 if kept else None
        results.append(
            ImageResult(
                number=number,
                label=task.label,
                clean=clean[number],
                broken_by=breakers[0] if breakers else None,
                all_broken_by=breakers,
                worst=kept.verdict if kept else None,
                rounded=rounded.get(number),
                distance=round(distance, 3) if distance is not None else None,
            )
        )
    return results


def robust(image: ImageResult) -> bool:
    """Right when clean, right under every attack, and right once the kept image is rounded: files hold that one."""
    return image.clean.right and not image.all_broken_by and not broken_by_rounding(image)


def broken_by_rounding(image: ImageResult) -> bool:
    """Whether no attack broke it and its kept image, rounded, does."""
    return not image.all_broken_by and image.rounded is not None and image.rounded.broken


def answered(image: ImageResult) -> int:
    """The label in the worst case."""
    kept = image.rounded if broken_by_rounding(image) else image.worst
    return (kept or image.clean).label


def class_rows(images: Sequence[ImageResult], names: Sequence[str]) -> list[ClassRow]:
    """Accuracy by true class, and what broken images are taken for; classes without images are left out."""
    rows = []
    for label, name in enumerate(names):
        own = [image for image in images if image.label == label]
        if own:
            answers = Counter(names[answered(image)] for image in own if not robust(image))
            rows.append(
                ClassRow(
                    name=name,
                    clean=share(sum(image.clean.right for image in own), len(own)),
                    robust=share(sum(robust(image) for image in own), len(own)),
                    mistaken_for=dict(answers.most_common()),
                )
            )
    return rows


def confusion(images: Sequence[ImageResult], classes: int) -> list[list[int]]:
    """confusion[true][answered] in the worst case of each image."""
    table = [[0] * classes for _ in range(classes)]
    for image in images:
        table[image.label][answered(image)] += 1
    return table
