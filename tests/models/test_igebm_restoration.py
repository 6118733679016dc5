"""The restoration experiment on the digits bundle: its numbers are those of the shared comparison."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.bundle import Bundle
from models.reproduce.igebm_restoration import PICTURE, Size, best_baseline, explain, gain, memory, remake
from models.tasks.corruptions import Half
from models.tasks.image_quality import Mean
from models.tasks.restoration_result import RESTORED, Quality, RestorationResult, Spread
from models.tasks.restoration_run import Restoring, restore_splits, true_images
from tests.conftest import ZOO

CPU = torch.device("cpu")
SIZE = Size(bundle=ZOO / "digits-midrun", preset="fast", corruptions=("salt-pepper=0.1", "half=lower"), images=18)


def test_it_finds_what_the_comparison_says_and_goes_on_to_the_same(tmp_path: Path, digits_bundle: Bundle) -> None:
    run = tmp_path / "run"
    found = remake(run, CPU, SIZE)
    manifest, energy = digits_bundle.manifest, digits_bundle.defence.energy
    config = Restoring(preset=manifest.preset("fast"), corruption=Half(side="lower"))
    truth = {split: true_images(manifest.image, "digits", split, 18) for split in ("train", "test")}
    result, images = restore_splits(energy, truth, config, tmp_path / "alone", {})
    assert found.details["results"]["half=lower"] == result.model_dump(mode="json")

    numbers = {number.what: number for number in found.numbers}
    assert len(numbers) == len(found.numbers) == 2 * 9
    best = best_baseline(result)
    errors = {RESTORED: images.restored["test"].images, "spoiled": images.corrupted["test"].images}
    squares = {name: float(((each - truth["test"]) / 2).square().mean()) for name, each in errors.items()}
    ours = numbers[f"half=lower, test images, {RESTORED}: MSE of pixels in [0, 1]"].ours
    assert ours == pytest.approx(squares[RESTORED], rel=0.02)
    assert squares[RESTORED] < squares["spoiled"]
    kept = numbers[f"half=lower: PSNR gained on {best}, training less test images"]
    assert (kept.ours, kept.ours_spread) == pytest.approx(memory(result), abs=0.01)

    parts = sorted(run.glob("*/parts/*"))
    assert len(parts) == 2 * 2 * 2
    for part in parts[1:3]:
        part.unlink()
    again = remake(run, CPU, SIZE)
    assert again.model_dump(exclude={"cpu_hours"}) == found.model_dump(exclude={"cpu_hours"})
    with Image.open(run / PICTURE) as picture:
        assert picture.width > 1000


def quality(psnr: float, behind: float | None) -> Quality:
    mean = Mean(value=psnr, low=psnr - 1, high=psnr + 1, count=9)
    error = Mean(value=0.1, low=0.05, high=0.15, count=9)
    lead = None if behind is None else Mean(value=behind, low=behind - 0.3, high=behind + 0.3, count=9)
    return Quality(mse=error, psnr=mean, behind=lead)


def of_gains(train: float, test: float) -> RestorationResult:
    splits = {
        split: {RESTORED: quality(30, None), "linear": quality(20, 9.0), "fill": quality(30 - lead, lead)}
        for split, lead in (("train", train), ("test", test))
    }
    return RestorationResult(quality=splits, memory={}, spread={"test": Spread(spread=0.02, error=0.1)})


@pytest.mark.parametrize(
    ("train", "test", "verdict", "remembers"),
    [
        (1.0, 0.9, "better than fill", "no sign"),
        (2.0, 0.2, "not told apart from fill", "a sign"),
        (-1.0, -0.9, "worse than fill", "no sign"),
    ],
)
def test_why_follows_from_the_intervals(train: float, test: float, verdict: str, remembers: str) -> None:
    result = of_gains(train, test)
    assert gain(result, "test") == pytest.approx((test, 0.3))
    assert memory(result) == pytest.approx((train - test, 0.3 * math.sqrt(2)))
    why = explain({"box=2": result})
    assert f"box=2: on test images the energy is {verdict}, by {test:+.2f} ± 0.30 dB" in why
    assert f"{train - test:+.2f} ± 0.42 dB more, {remembers} that it remembers them." in why
    assert "spreads by 5/255 and errs by 26/255." in why
