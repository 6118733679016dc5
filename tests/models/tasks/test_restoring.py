"""Corruptions, baselines, errors, and runs that are interrupted."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from models.__main__ import main
from models.errors import ConfigError
from models.image_files import write_png
from models.pixels import from_uint8
from models.streams import Stream
from models.tasks.baselines import baselines, linear, median
from models.tasks.corruptions import Box, Corrupted, Half, SaltAndPepper, parse_corruption
from models.tasks.image_quality import SMALLEST_MSE, difference_of, mean_of, mse, psnr
from tests.conftest import ZOO

STREAM = Stream(("test",))
DIGITS = str(ZOO / "digits-midrun")


def grey(count: int, side: int = 32) -> Tensor:
    return torch.full((count, 3, side, side), 0.25)


def test_salt_and_pepper_spoil_their_share_half_and_half() -> None:
    corrupted = SaltAndPepper(share=0.1)(grey(50), STREAM)
    pixels, error = corrupted.mask.numel(), 4 * math.sqrt(0.1 / corrupted.mask.numel())
    assert float(corrupted.mask.float().mean()) == pytest.approx(0.1, abs=error)
    white, black = (corrupted.images == level for level in (1.0, -1.0))
    assert float(white[:, 0].sum() / pixels) == pytest.approx(0.05, abs=error)
    assert torch.equal((white | black).all(1, keepdim=True), corrupted.mask)
    assert bool((corrupted.images[~corrupted.mask.expand_as(corrupted.images)] == 0.25).all())


def test_a_box_lies_inside_and_anywhere() -> None:
    corrupted = Box(side=10)(grey(200), STREAM)
    assert corrupted.mask.sum((1, 2, 3)).tolist() == [100] * 200
    tops = corrupted.mask[:, 0].any(2).float().argmax(1)
    assert (int(tops.min()), int(tops.max())) == (0, 22)
    with pytest.raises(ConfigError, match="box=33: the images are 32x32"):
        Box(side=33)(grey(1), STREAM)


@pytest.mark.parametrize(
    ("side", "corner"), [("lower", (31, 0)), ("upper", (0, 31)), ("left", (31, 0)), ("right", (0, 31))]
)
def test_halves(side: Any, corner: tuple[int, int]) -> None:
    corrupted = Half(side=side)(grey(2), STREAM)
    assert corrupted.mask.sum((1, 2, 3)).tolist() == [512, 512]
    assert corrupted.mask[1, 0][corner]
    assert not corrupted.images[1, 0][corner]


@pytest.mark.parametrize("corruption", [SaltAndPepper(share=0.3), Box(side=5)])
def test_an_images_fate_does_not_hang_on_how_many_there_are(corruption: Callable[[Tensor, Stream], Corrupted]) -> None:
    many, few = (corruption(grey(count), STREAM) for count in (9, 4))
    assert torch.equal(many.images[:4], few.images)
    assert not torch.equal(many.images[0], many.images[1])


def test_corruptions_by_name() -> None:
    assert parse_corruption("salt-pepper=0.1") == SaltAndPepper(share=0.1)
    assert parse_corruption("box=16") == Box(side=16)
    assert parse_corruption("half=lower") == Half(side="lower")


@pytest.mark.parametrize("text", ["salt-pepper", "salt-pepper=2", "box=0", "box=1.5", "half=inner", "rain=1", ""])
def test_an_unknown_corruption_names_itself_and_what_is_known(text: str) -> None:
    with pytest.raises(ConfigError, match=f"^corruption '{text}': expected salt-pepper=SHARE, box=PIXELS or half="):
        parse_corruption(text)


def test_linear_interpolation_repeats_a_ramp_and_goes_on_flat() -> None:
    ramp = torch.linspace(-1, 1, 16).view(1, 1, 16, 1).expand(1, 2, 16, 16)
    hole = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    hole[..., 4:9, 3:12] = True
    torch.testing.assert_close(linear(ramp.masked_fill(hole, 9.0), hole), ramp)
    lower = torch.arange(16).view(1, 1, 16, 1).expand(1, 1, 16, 16) >= 8
    assert bool((linear(ramp, lower)[:, :, 8:] == ramp[0, 0, 7, 0]).all())
    line = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    line[..., 5, :] = False  # known pixels on a line have no triangles
    assert bool((linear(ramp, line) == ramp[0, 0, 5, 0]).all())


def test_a_median_removes_single_pixels_and_shifts_nothing_else() -> None:
    x = torch.linspace(-1, 1, 16).view(1, 1, 16, 1).expand(2, 3, 16, 16).clone()
    spoiled = x.clone()
    spoiled[:, :, 5, 5] = 1.0
    torch.testing.assert_close(median(spoiled)[:, :, 5, 5], x[:, :, 5, 5])
    torch.testing.assert_close(median(x), x)


def test_baselines_see_no_more_than_the_restorer() -> None:
    unmarked = baselines(SaltAndPepper(share=0.1)(grey(2), STREAM), marked=False)
    assert unmarked.keys() == {"median", "linear", "fill"}
    assert all(torch.allclose(unmarked[name], grey(2)) for name in ("linear", "fill"))
    assert baselines(Box(side=4)(grey(2), STREAM), marked=True).keys() == {"linear", "fill"}


def test_errors_are_of_rounded_pixels_between_0_and_1() -> None:
    truth = from_uint8(torch.full((2, 1, 2, 2), 100, dtype=torch.uint8))
    off = truth + torch.tensor([0.3, 10.0]).view(2, 1, 1, 1) * 2 / 255
    errors = mse(off, truth)
    assert errors[0] < 1e-12
    assert float(errors[1]) == pytest.approx((10 / 255) ** 2, rel=1e-5)
    assert psnr(errors).tolist() == pytest.approx([-10 * math.log10(SMALLEST_MSE), 20 * math.log10(25.5)])


def test_intervals_hold_their_95_percent() -> None:
    drawn = torch.randn(4000, 50, generator=torch.Generator().manual_seed(0)) + 3
    means = [mean_of(row) for row in drawn]
    assert sum(each.low < 3 < each.high for each in means) / 4000 == pytest.approx(0.945, abs=0.015)
    gaps = [difference_of(row, other) for row, other in zip(drawn[::2], 2 * drawn[1::2], strict=True)]
    assert sum(each.low < -3 < each.high for each in gaps) / 2000 == pytest.approx(0.945, abs=0.02)


def restore(out: Path, *options: str) -> int:
    return main(["restore", "--bundle", DIGITS, "--preset", "fast", "--device", "cpu", "--out", str(out), *options])


def read(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return table


def test_a_run_is_reported_and_goes_on_to_the_same_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--corruption", "half=lower", "--images", "20", "--replicates", "3", "--steps", "8")
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert restore(whole, *options) == 0
    printed = capsys.readouterr().out
    assert "train - test, restored: " in printed
    result = read(whole)
    assert result["preset"]["num_steps"] == 8
    assert result["corruption"] == {"side": "lower", "marked": True}
    for split in ("train", "test"):
        quality = result["quality"][split]
        assert quality.keys() == {"restored", "linear", "fill"}
        paired = quality["restored"]["psnr"]["value"] - quality["linear"]["psnr"]["value"]
        assert quality["linear"]["behind"]["value"] == pytest.approx(paired)
        assert quality["restored"]["mse"]["count"] == 20
    with Image.open(whole / "grid.png") as opened:
        assert opened.size == ((4 * 9 + 1) * 2, (12 * 9 + 1) * 2)

    assert restore(again, *options) == 0
    parts = sorted((again / "parts").iterdir())
    assert [part.name for part in parts] == [
        *("test-000000.safetensors", "test-000016.safetensors"),
        *("train-000000.safetensors", "train-000016.safetensors"),
    ]
    for part in parts[1:3]:
        part.unlink()
    assert restore(again, *options) == 0
    assert read(again) == result
    capsys.readouterr()
    assert restore(again, *options, "--seed", "1") == 2
    assert "belongs to another run" in capsys.readouterr().err
    parts[0].write_bytes(b"half")
    assert restore(again, *options) == 2
    assert "does not hold restored images" in capsys.readouterr().err


def test_an_image_and_its_mask(tmp_path: Path, digits_test: Any, capsys: pytest.CaptureFixture[str]) -> None:
    image, mask = digits_test.images[0], torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[:, :, 4:] = 255
    paths = [str(tmp_path / name) for name in ("image.png", "mask.png")]
    for path, pixels in zip(paths, (image, mask), strict=True):
        write_png(Path(path), pixels)
    out = tmp_path / "out"
    assert restore(out, "--image", paths[0], "--mask", paths[1]) == 0
    restored, uncertainty = (np.array(Image.open(out / name)) for name in ("restored.png", "uncertainty.png"))
    assert np.array_equal(restored[:, :4], image[0, :, :4].numpy())
    assert not np.array_equal(restored[:, 4:], image[0, :, 4:].numpy())
    assert not uncertainty[:, :4].any()
    assert uncertainty[:, 4:].all()
    write_png(Path(paths[1]), torch.zeros_like(mask))
    capsys.readouterr()
    assert restore(out, "--image", paths[0], "--mask", paths[1]) == 2
    assert "mask.png: all 64 pixels are black" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "expected --corruption with images of a data set, or --image"),
        (("--corruption", "box=2", "--mask", "m.png"), "expected --corruption"),
        (("--corruption", "box=2", "--images", "1"), "--images 1: expected at least 2"),
        (("--corruption", "box=2", "--images", "301"), "digits test has 300 images"),
        (("--corruption", "box=2", "--data", "mnist"), "expected at least 64 of"),
        (("--corruption", "box=9", "--images", "2"), "box=9: the images are 8x8"),
    ],
)
def test_what_can_not_be_restored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert restore(tmp_path, *options) == 2
    assert message in capsys.readouterr().err
