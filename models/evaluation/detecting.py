"""Detection from an energy to its result and pictures, in a folder where what was measured is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from models.bundle import Bundle
from models.console import progress_bar
from models.data import load_dataset
from models.evaluation.density import spread
from models.evaluation.detection_plot import plot_detection, plot_images
from models.evaluation.detection_run import (
    DATA,
    PAPER,
    PAPER_NOTE,
    DetectionResult,
    Subject,
    averages,
    collect,
    evaluate_sets,
    measure,
)
from models.evaluation.detection_sets import MADE

REAL = ("svhn", "textures", "cifar100", "cifar10", "mnist", "digits")
"""Datasets asked for by default, but for the data itself."""
CURVES, IMAGES = "detection.png", "images.png"
RESPONSES = "responses"


@dataclass(frozen=True)
class Question:
    """Which images are usual, and which others are to be told from them.

    Args:
        data: the dataset of the usual ones, from `folder` where one is given.
        against: sets by name, with the folder of a local copy; none is all that are made, and REAL.
        first, images: number of the first test image, and how many of each set are scored.
    """

    data: str
    folder: Path | None = None
    against: Mapping[str, Path | None] = field(default_factory=dict)
    first: int = 0
    images: int = 1000
    seed: int = 0


def subject_of(bundle: Bundle, device: torch.device) -> Subject:
    """A bundle's energy, on `device`, in the precision of the preset that it is served with."""
    manifest, image = bundle.manifest, bundle.manifest.image
    precision = manifest.presets[manifest.default_preset].precision
    shape = (image.channels, image.height, image.width)
    return Subject(bundle.defence.energy, precision, shape, manifest.weights_digest, device)


def detect_sets(subject: Subject, question: Question, folder: Path) -> DetectionResult:
    """Score every set and compare it with the data; leaves CURVES and IMAGES in `folder`.

    Responses that an earlier run left there are not computed again.
    """
    data = question.data
    names = dict(question.against) or {name: None for name in (*MADE, *REAL) if name != data}
    channels, height, _ = subject.shape
    test = load_dataset(data, "test", question.folder, height, channels).images
    sets = collect(test, question.first, question.images, names, subject.shape, question.seed)
    with progress_bar("images", sum(map(len, sets.images.values()))) as progress:
        responses = measure(subject, sets, folder / RESPONSES, partial(progress.advance, progress.task_ids[0]))
    with progress_bar("sets", len(sets.unusual)) as progress:
        mean, results = evaluate_sets(responses, sets.unusual, partial(progress.advance, progress.task_ids[0]))
    on_cifar10 = data == "cifar10"
    result = DetectionResult(
        weights=subject.weights,
        precision=subject.precision,
        data=data,
        first=question.first,
        images=question.images,
        seed=question.seed,
        energies=spread(responses[DATA].energy),
        mean_energy=mean,
        sets=results,
        averages=averages(results, on_cifar10),
        paper=PAPER if on_cifar10 else {},
        paper_note=PAPER_NOTE if on_cifar10 else "",
        not_run=sets.not_run,
    )
    plot_images(sets, data, folder / IMAGES)
    if results:
        plot_detection(result, responses, folder / CURVES)
    return result
