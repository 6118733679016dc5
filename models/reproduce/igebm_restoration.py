"""Lost pixels made anew: denoising and inpainting of training and test images (IGEBM, arXiv 1903.08689, section 4.2).

FOLDER/CORRUPTION/parts   restored images, chunk by chunk
"""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from models.bundle import Bundle, load_bundle
from models.config import Frozen
from models.reproduce.result import Finding, Number
from models.tasks.corruptions import parse_corruption
from models.tasks.restoration_result import RESTORED, RestorationResult
from models.tasks.restoration_run import SPLITS, Restoring, Spoiled, restore_splits, restoring_seconds, true_images
from models.training.diagnostics import image_grid

BUNDLE = Path(__file__).parents[1] / "zoo" / "cifar10-midrun"
PICTURE = "restored.png"
SHOWN = 5
INTERVAL = "half of the 95 % interval over images"


class Size(Frozen):
    """What is restored: `images` of each split, spoiled in each of the ways; `preset` is one of the bundle's."""

    bundle: Path = BUNDLE
    preset: str = "balanced"
    corruptions: tuple[str, ...] = ("salt-pepper=0.1", "box=16", "half=lower")
    images: int = 64
    seed: int = 0


FULL = Size()
Results = Mapping[str, RestorationResult]
"""By corruption."""


def remake(folder: Path, device: torch.device, size: Size = FULL) -> Finding:
    """Restore what is not restored yet, and compare."""
    runs = {text: folder / text.replace("=", "-") for text in size.corruptions}
    began, before = time.process_time(), sum(map(restoring_seconds, runs.values()))
    bundle = load_bundle(size.bundle, device)
    name, shape = bundle.manifest.dataset, bundle.manifest.image
    truth = {split: true_images(shape, name, split, size.images).to(device) for split in SPLITS}
    identity = {"weights": bundle.manifest.weights_digest, "data": name}
    results: dict[str, RestorationResult] = {}
    shown: dict[str, Spoiled] = {}
    for text, run in runs.items():
        preset, corruption = bundle.manifest.preset(size.preset), parse_corruption(text)
        config = Restoring(preset=preset, corruption=corruption, seed=size.seed)
        results[text], shown[text] = restore_splits(bundle.defence.energy, truth, config, run, identity)
    _plot(shown, folder / PICTURE)
    return _finding(bundle, size, results, before + time.process_time() - began)


def _finding(bundle: Bundle, size: Size, results: Results, seconds: float) -> Finding:
    preset = bundle.manifest.preset(size.preset)
    settled = "" if preset.settle is None else " or until they settle"
    return Finding(
        title="Restoration of CIFAR-10",
        source=(
            "IGEBM's section on restoration: pictures of images with salt and pepper, and of others whose lower half "
            "is made anew, and a comparison of training with test images whose numbers we do not have."
        ),
        numbers=tuple(_numbers(results)),
        setting=(
            f"The energy of the shipped bundle {bundle.manifest.name}, learned mid-run, with its preset "
            f"{size.preset}: the mean of {preset.replicates} chains, {preset.num_steps} steps{settled}. The first "
            f"{size.images} training and test images, spoiled by {', '.join(size.corruptions)}. Salt and pepper are "
            "not marked: every black or white pixel is taken for lost. Chains begin at `fill`, a smooth guess. Beside "
            "it: that guess, linear interpolation and, where nothing is marked, the median of 3x3 pixels."
        ),
        why=explain(results),
        pictures=(PICTURE,),
        cpu_hours=round(seconds / 3600, 3),
        details={
            "size": size.model_dump(mode="json", exclude={"bundle"}),
            "weights": bundle.manifest.weights_digest,
            "preset": preset.model_dump(mode="json"),
            "results": {text: result.model_dump(mode="json") for text, result in results.items()},
        },
    )


def best_baseline(result: RestorationResult) -> str:
    """Which method besides the energy has the highest mean PSNR on test images."""
    qualities = result.quality["test"]
    return max((name for name in qualities if name != RESTORED), key=lambda name: qualities[name].psnr.value)


def gain(result: RestorationResult, split: str) -> tuple[float, float]:
    """PSNR of the energy's answers less the best baseline's, image by image, and half of its 95 % interval."""
    behind = result.quality[split][best_baseline(result)].behind
    assert behind is not None
    return behind.value, (behind.high - behind.low) / 2


def memory(result: RestorationResult) -> tuple[float, float]:
    """The gain on training images less that on test images, and half of its 95 % interval."""
    (train, of_train), (test, of_test) = gain(result, "train"), gain(result, "test")
    return train - test, math.hypot(of_train, of_test)


def _numbers(results: Results) -> Iterator[Number]:
    for text, result in results.items():
        best = best_baseline(result)
        for split, qualities in result.quality.items():
            for name, shown in ((RESTORED, RESTORED), (best, f"best baseline, {best}")):
                what, found = f"{text}, {split} images, {shown}", qualities[name]
                yield Number(what=f"{what}: PSNR", paper=None, ours=round(found.psnr.value, 2), unit="dB")
                yield Number(what=f"{what}: MSE of pixels in [0, 1]", paper=None, ours=round(found.mse.value, 5))
        value, half = (round(each, 2) for each in memory(result))
        what = f"{text}: PSNR gained on {best}, training less test images"
        yield Number(what=what, paper=None, ours=value, ours_spread=half, spread=INTERVAL, unit="dB")


def explain(results: Results) -> str:
    """Where the energy beats what learned nothing, and whether it does so more on images that it learned from."""
    said = []
    for text, result in results.items():
        best, (value, half), (more, error) = best_baseline(result), gain(result, "test"), memory(result)
        verdict = "not told apart from" if abs(value) <= half else "better than" if value > 0 else "worse than"
        spread = result.spread["test"]
        learned = "no sign that it remembers" if more <= error else "a sign that it remembers"
        said.append(
            f"{text}: on test images the energy is {verdict} {best}, by {value:+.2f} ± {half:.2f} dB; on training "
            f"images it gains {more:+.2f} ± {error:.2f} dB more, {learned} them. What it made anew spreads by "
            f"{255 * spread.spread:.0f}/255 and errs by {255 * spread.error:.0f}/255."
        )
    said.append(
        "The paper's energy learned from chains that start in noise and can fill a hole from there; ours learned from "
        "chains that start in photographs, to bring them back: it corrects, and does not invent."
    )
    return " ".join(said)


def _plot(shown: Mapping[str, Spoiled], path: Path) -> None:
    """A line a corruption: test images as they were, spoiled, restored, and their uncertainty."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 * SHOWN, 0.85 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (text, images) in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown.items(), strict=True):
        rows, most = images.rows("test", SHOWN)
        axis.imshow(np.asarray(image_grid(rows.flatten(0, 1), 4 * len(rows))), interpolation="nearest")
        white = f"white is a deviation of {most * 127.5:.0f}/255"
        axis.set_title(f"{text}: original, spoiled, restored, uncertainty ({white})", loc="left", fontsize="small")
        axis.set_axis_off()
    figure.savefig(path, dpi=150)
