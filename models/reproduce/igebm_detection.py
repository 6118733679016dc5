"""Does an energy know what it has not learned? IGEBM's table of out-of-distribution detection (arXiv 1903.08689).

The energy is the shipped CIFAR-10 bundle's. The paper's conditional energies learn by the `igebm_...` recipes.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import torch

from models.bundle import load_bundle
from models.config import Frozen
from models.evaluation.detecting import CURVES, IMAGES, RESPONSES, Question, detect_sets, subject_of
from models.evaluation.detection import SCORES
from models.evaluation.detection_run import (
    FROM_MEMORY,
    PAPER_NOTE,
    Average,
    DetectionResult,
    SetResult,
    measured_seconds,
)
from models.reproduce.result import Finding, Number

BUNDLE = Path(__file__).parents[1] / "zoo" / "cifar10-midrun"
NAMES = {"energy": "energy", "typicality": "typicality", "gradient_norm": "length of the gradient"}


class Size(Frozen):
    """How many images of each set are scored, `first` of the test images onwards; no `against` is all sets."""

    bundle: Path = BUNDLE
    first: int = 0
    images: int = 5000
    against: tuple[str, ...] = ()
    seed: int = 0


FULL = Size()


def remake(folder: Path, device: torch.device, size: Size = FULL) -> Finding:
    """Score what is not scored yet, and compare."""
    began, before = time.process_time(), measured_seconds(folder / RESPONSES)
    bundle = load_bundle(size.bundle, device)
    against = dict.fromkeys(size.against)
    question = Question(bundle.manifest.dataset, None, against, size.first, size.images, size.seed)
    result = detect_sets(subject_of(bundle, device), question, folder)
    seconds = before + time.process_time() - began
    return Finding(
        title="Out-of-distribution detection",
        source=f"IGEBM's table of out-of-distribution detection. {PAPER_NOTE}.",
        numbers=tuple(_numbers(result)),
        setting=(
            f"The energy of the shipped bundle {bundle.manifest.name}, learned mid-run. {size.images:,} test images of "
            f"{result.data} from number {size.first}, which training did not use, against as many of each set where it "
            "has them; all of one size, in 8 bits, without noise. Typicality is the distance of U to its mean over as "
            "many other test images."
        ),
        why=explain(result),
        pictures=(CURVES, IMAGES),
        cpu_hours=round(seconds / 3600, 3),
        details=result.model_dump(mode="json"),
    )


def _numbers(result: DetectionResult) -> Iterator[Number]:
    for score in SCORES:
        by = NAMES[score]
        for each in result.sets:
            found = each.scores[score].auroc
            paper = result.paper.get(each.name) if score == "energy" else None
            recalled = paper is not None and each.name in FROM_MEMORY
            what = f"AUROC by {by}: {each.name}"
            yield Number(what=what, paper=paper, ours=round(found.value, 3), recalled=recalled)
        for average in result.averages:
            paper = _of_paper(result, average) if score == "energy" else None
            recalled = paper is not None and not FROM_MEMORY.isdisjoint(average.over)
            what = f"mean AUROC by {by}: {', '.join(average.over)}"
            yield Number(what=what, paper=paper, ours=round(average.auroc[score], 3), recalled=recalled)
    for name in result.not_run:
        yield Number(what=f"AUROC: {name}, not run", paper=result.paper.get(name), ours=None)


def _of_paper(result: DetectionResult, average: Average) -> float | None:
    """The paper's mean over the same sets; None where it has not measured all of them."""
    theirs = [result.paper.get(name) for name in average.over]
    known = [value for value in theirs if value is not None]
    return round(fmean(known), 3) if known and len(known) == len(theirs) else None


def explain(result: DetectionResult) -> str:
    """What the energy finds likelier than the data, what its distance to the mean makes of that, whose energy it is."""
    said = []
    for average in result.averages:
        if (paper := _of_paper(result, average)) is not None:
            own = average.auroc["energy"]
            said.append(f"Over {', '.join(average.over)} the paper's own mean is {paper:.2f}, ours {own:.2f}.")
    likelier = [each for each in result.sets if each.scores["energy"].auroc.high < 0.5]
    if likelier:
        told = [f"{each.name} ({_told(each)})" for each in likelier]
        said.append(
            f"Below the data in energy, and so missed by it, are {'; '.join(told)}: what is smooth costs it little."
        )
    if result.averages:
        over_all = result.averages[0].auroc
        said.append(
            "Over all sets that were run typicality, which takes either side of the mean energy for unusual, has a "
            f"mean of {over_all['typicality']:.2f}, the energy {over_all['energy']:.2f}."
        )
    said.append(
        "The paper's energies read labels, were larger, and learned from chains that start in noise; this one learned "
        "from chains that start in photographs, to bring them back. `python -m models train igebm_cifar10_light` "
        "learns one as the paper did, without labels; `python -m models detect --checkpoint` asks it the same."
    )
    return " ".join(said)


def _told(each: SetResult) -> str:
    return ", ".join(f"{score} {each.scores[score].auroc.value:.2f}" for score in ("energy", "typicality"))
