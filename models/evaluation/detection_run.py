"""Out-of-distribution detection of one energy: sets of images collected, scored, and compared with the data's."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor

from models.config import Frozen
from models.data import load_dataset
from models.errors import DataError
from models.evaluation.density import Spread, spread
from models.evaluation.detection import SCORES, Response, respond, scores_of
from models.evaluation.detection_sets import MADE, Shape, fit
from models.evaluation.detection_statistics import Detection, detection
from models.evaluation.feature_cache import image_digest
from models.files import replace_file
from models.gradients import Energy
from models.kept import kept_tensors
from models.pixels import from_uint8
from models.precision import Precision
from models.streams import Stream

DATA = "data"
"""The name of the images in distribution, which are scored; `OTHERS`, as many, are not: they give U its mean."""
OTHERS = "others"
PAPER = {"svhn": 0.63, "textures": 0.48, "interpolation": 0.70, "constant": 0.30, "uniform": 1.0}
FROM_MEMORY = frozenset({"constant", "uniform"})
"""Sets whose number of the paper was not checked."""
PAPER_AVERAGE = 0.62
PAPER_NOTE = (
    "AUROC of the energy that IGEBM (arXiv 1903.08689) reports for CIFAR-10, prepared otherwise than here: svhn, "
    "textures and interpolation from its text; constant, uniform and the average from memory, not checked"
)


@dataclass(frozen=True)
class Subject:
    """An energy that is asked, where it is, and what names its weights."""

    energy: Energy
    precision: Precision
    shape: Shape
    weights: str
    device: torch.device


@dataclass(frozen=True)
class Sets:
    """uint8 images of each set by name, DATA and OTHERS among them, and why others are not there."""

    images: dict[str, Tensor]
    not_run: dict[str, str]

    @property
    def unusual(self) -> tuple[str, ...]:
        """The sets that are not the data."""
        return tuple(name for name in self.images if name not in (DATA, OTHERS))


class SetResult(Frozen):
    """One set against the data: its energies, and how well each score finds it."""

    name: str
    energies: Spread
    scores: dict[str, Detection]


class Average(Frozen):
    """The mean AUROC of each score over the sets that are named; `paper` is IGEBM's over all five of its own."""

    over: tuple[str, ...]
    auroc: dict[str, float]
    paper: float | None = None


class DetectionResult(Frozen):
    """What was measured, and all that it depends on but for where the energy came from.

    Args:
        first: number of the first test image; `images` are scored, and as many after them give the mean energy and the
            sets that are made from data.
    """

    kind: Literal["detection"] = "detection"
    weights: str
    precision: Precision
    data: str
    first: int
    images: int
    seed: int
    energies: Spread
    mean_energy: float
    sets: tuple[SetResult, ...]
    averages: tuple[Average, ...]
    paper: dict[str, float]
    paper_note: str
    not_run: dict[str, str]


def collect(test: Tensor, first: int, count: int, names: Mapping[str, Path | None], shape: Shape, seed: int) -> Sets:
    """`count` images of each set, as uint8 of `shape`; fewer where a dataset has no more.

    Args:
        test: the data's test images, uint8 [N, C, H, W].
        names: each set's, with the folder of a local copy. A dataset without one that no source gives is `not_run`.

    Raises:
        DataError: there are fewer than 2 `count` test images, or a folder does not hold the dataset.
    """
    if not 0 <= first < first + 2 * count <= len(test):
        raise DataError(
            f"{count} images from number {first}, and as many others for the mean energy, are more than the "
            f"{len(test)} test images"
        )
    data, others = fit(test[first : first + 2 * count], shape, _generator(seed, DATA)).split(count)
    images, not_run = {DATA: data, OTHERS: others}, {}
    for name, folder in names.items():
        try:
            generator = _generator(seed, name)
            images[name] = (
                MADE[name](others, generator) if name in MADE else _drawn(name, folder, count, shape, generator)
            )
        except DataError as error:
            if folder is not None:
                raise
            not_run[name] = str(error)
    return Sets(images, not_run)


def measure(subject: Subject, sets: Sets, folder: Path, advance: Callable[[int], None]) -> dict[str, Response]:
    """The energy's response to each set, read where an earlier run has left it in `folder`."""
    return {name: _measure(subject, name, images, folder, advance) for name, images in sets.images.items()}


def measured_seconds(folder: Path) -> float:
    """CPU seconds that the responses in `folder` have taken; 0 where there are none."""
    kept = [kept_tensors(path, Response._fields, "responses") for path in folder.glob("*.safetensors")]
    return sum(float(each[1].get("cpu_seconds", "0")) for each in kept if each is not None)


def evaluate_sets(
    responses: Mapping[str, Response], unusual: Sequence[str], advance: Callable[[int], None] = lambda sets: None
) -> tuple[float, tuple[SetResult, ...]]:
    """The mean energy of OTHERS, and each set's result against DATA; `advance` is told of each set."""
    mean = float(responses[OTHERS].energy.double().mean())
    usual = scores_of(responses[DATA], mean)
    results = []
    for name in unusual:
        found = scores_of(responses[name], mean)
        scores = {score: detection(usual[score], found[score]) for score in SCORES}
        results.append(SetResult(name=name, energies=spread(responses[name].energy), scores=scores))
        advance(1)
    return mean, tuple(results)


def averages(results: Sequence[SetResult], like_the_paper: bool) -> tuple[Average, ...]:
    """Over all sets, and over those of the paper's that were measured."""
    of_paper = [each for each in results if each.name in PAPER]
    found = [_average(results)] if results else []
    if like_the_paper and of_paper:
        found.append(_average(of_paper).model_copy(update={"paper": PAPER_AVERAGE}))
    return tuple(found)


def _average(results: Sequence[SetResult]) -> Average:
    auroc = {score: sum(each.scores[score].auroc.value for each in results) / len(results) for score in SCORES}
    rounded = {score: round(value, 5) for score, value in auroc.items()}
    return Average(over=tuple(each.name for each in results), auroc=rounded)


def _drawn(name: str, folder: Path | None, count: int, shape: Shape, generator: torch.Generator) -> Tensor:
    """Test images of a dataset in random order, for files are often sorted by class."""
    images = load_dataset(name, "test", folder, max(shape[1:]), shape[0]).images
    rows = torch.randperm(len(images), generator=generator)[:count]
    return fit(images[rows], shape, generator)


def _measure(subject: Subject, name: str, images: Tensor, folder: Path, advance: Callable[[int], None]) -> Response:
    # The device is in the name because GPUs round differently.
    content = f"{subject.weights}, {subject.precision}, {subject.device.type}, {image_digest(images)}"
    path = folder / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.safetensors"
    if (kept := kept_tensors(path, Response._fields, "responses")) is not None:
        advance(len(images))
        return Response(**kept[0])
    began = time.process_time()
    response = respond(subject.energy, from_uint8(images).to(subject.device), subject.precision, advance)
    for values in response:
        if not values.isfinite().all():
            raise DataError(f"{name}: the energy is not finite on {int((~values.isfinite()).sum())} images")
    replace_file(path, save(response._asdict(), {"cpu_seconds": f"{time.process_time() - began:.1f}"}))
    return response


def _generator(seed: int, name: str) -> torch.Generator:
    """Each set's own: its images do not depend on which other sets are asked for."""
    return Stream((seed, "detection", name)).noise_generator()
