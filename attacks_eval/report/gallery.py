"""The pictures: clean, adversarial, what was changed, and what the purifier made of it."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from attacks_eval.errors import ResultError
from attacks_eval.evaluation import Evaluation, ImageResult
from attacks_eval.report.words import attack_title
from attacks_eval.summary import broken_by_rounding
from models.image_files import encode_png
from models.pages.document import Gallery, Picture, PictureRow
from models.pages.wording import TIMES, signed

DIFFERENCE_GAIN = 10

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AdversarialImages:
    """`adv.npz`: images [M, C, H, W] in [0, 1]; `purified` is not clipped."""

    number: npt.NDArray[np.int64]
    clean: Pixels
    adversarial: Pixels
    rounded: npt.NDArray[np.uint8]
    purified: Pixels | None

    def position(self, number: int) -> int | None:
        """Where the image of that number is."""
        found = np.flatnonzero(self.number == number)
        return int(found[0]) if len(found) else None


def read_adversarial(path: Path) -> AdversarialImages | None:
    """The file's arrays, or None when there is no file; raises ResultError that names the file and the array."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ResultError(f"{path} is not an archive of arrays: {error}") from error
    expected = ("number", "clean", "adversarial", "adversarial_uint8")
    if missing := [key for key in expected if key not in arrays]:
        raise ResultError(f"{path} has no array {', '.join(missing)}")
    shape = arrays["clean"].shape
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise ResultError(f"{path}: clean has shape {shape}, expected [M, C, H, W] with C 1 or 3")
    for key in ("number", "adversarial", "adversarial_uint8", "purified"):
        wanted = shape[:1] if key == "number" else shape
        if key in arrays and arrays[key].shape != wanted:
            raise ResultError(f"{path}: {key} has shape {arrays[key].shape}, expected {wanted}")
    if arrays["adversarial_uint8"].dtype != np.uint8:
        raise ResultError(f"{path}: adversarial_uint8 is {arrays['adversarial_uint8'].dtype}, expected uint8")
    return AdversarialImages(
        number=arrays["number"],
        clean=arrays["clean"],
        adversarial=arrays["adversarial"],
        rounded=arrays["adversarial_uint8"],
        purified=arrays.get("purified"),
    )


def gallery(evaluation: Evaluation, images: AdversarialImages) -> Gallery:
    """The rows that the evaluation names; raises ResultError for a number without an image or a result."""
    results = {result.number: result for result in evaluation.image_results}
    rows = []
    for number in evaluation.gallery:
        position = images.position(number)
        if position is None or number not in results:
            where = "adv.npz" if position is None else "image_results"
            raise ResultError(f"gallery names image {number}, which {where} does not hold")
        rows.append(_row(evaluation, results[number], images, position))
    head = ("clean", "adversarial", f"difference {TIMES} {DIFFERENCE_GAIN}")
    return Gallery(head if images.purified is None else (*head, "purified"), tuple(rows))


def difference(clean: Pixels, adversarial: Pixels) -> Pixels:
    """Ten times the change, around grey: grey is an unchanged pixel."""
    changed: Pixels = 0.5 + DIFFERENCE_GAIN * (adversarial - clean)
    return changed


def _row(evaluation: Evaluation, result: ImageResult, images: AdversarialImages, at: int) -> PictureRow:
    states = [("clean", _png(images.clean[at])), ("adversarial", encode_png(torch.from_numpy(images.rounded[at])))]
    changed = difference(images.clean[at], images.adversarial[at])
    states.append((f"difference times {DIFFERENCE_GAIN} of", _png(changed)))
    if images.purified is not None:
        states.append(("purified", _png(images.purified[at])))
    name = f"image {result.number}, {evaluation.class_names[result.label]}"
    return PictureRow(_caption(evaluation, result), tuple(Picture(png, f"{state} {name}") for state, png in states))


def _caption(evaluation: Evaluation, result: ImageResult) -> str:
    names = evaluation.class_names
    caption = f"Image {result.number}: {names[result.label]}"
    if result.worst is not None:
        caption += f", answered {names[result.worst.label]} (margin {signed(result.worst.margin, 2)})"
    if result.distance is not None:
        caption += f", changed by {result.distance:.3g}/255"
    if result.broken_by is not None:
        return f"{caption}; first broken by {attack_title(evaluation, result.broken_by)}"
    if broken_by_rounding(result):
        return f"{caption}; survived every attack, and wrong once rounded to 256 levels"
    return f"{caption}; {'survived every attack' if result.clean.right else 'wrong before any attack'}"


def _png(pixels: Pixels) -> bytes:
    levels = (np.clip(pixels, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    return encode_png(torch.from_numpy(levels))
