"""python -m models fidelity, on the digits that scikit-learn brings."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.__main__ import main
from models.data import load_dataset
from models.errors import DataError
from models.evaluation.sample_files import read_samples
from models.image_files import write_png
from models.manifest import ImageShape

DIGITS = ImageShape(height=8, width=8, channels=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMPID_CACHE", str(tmp_path / "cache"))


def npz(path: Path, **arrays: object) -> str:
    np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
    return str(path)


def run(tmp_path: Path, samples: str, *more: str) -> int:
    arguments = ("--samples", samples, "--data", "digits", "--count", "20", "--device", "cpu", *more)
    return main(["fidelity", *arguments, "--out", str(tmp_path / "result.json")])


def test_the_result_says_what_it_was_measured_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Noise is far from the digits, whose own floor stands beside it; a second run gives the same numbers."""
    noise = torch.randint(0, 256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    samples = npz(tmp_path / "noise.npz", images=noise, labels=[0])
    assert run(tmp_path, samples) == 0
    printed = capsys.readouterr().out
    written = (tmp_path / "result.json").read_text()
    result = json.loads(written)
    scores = {each["name"]: each for each in result["scores"]}
    assert list(scores) == ["FD-EffLite0", "KID-EffLite0", "Precision-EffLite0", "Recall-EffLite0", "IS-EffLite0"]
    frechet = scores["FD-EffLite0"]
    assert frechet["samples"]["value"] > 2 * frechet["floor"]["value"] > 0
    assert f"{frechet['samples']['value']:.2f}" in printed
    assert f"floor {frechet['floor']['value']:.2f}" in printed
    assert scores["Precision-EffLite0"]["samples"]["value"] < scores["Precision-EffLite0"]["floor"]["value"]
    assert len(scores["Recall-EffLite0"]["floor"]["interval"]) == 2
    assert scores["KID-EffLite0"]["floor"]["standard_error"] > 0
    assert (result["kind"], result["data"], result["count"], result["seed"]) == ("fidelity", "digits", 20, 0)
    assert "EfficientNet-Lite0" in result["features"]
    assert run(tmp_path, samples) == 0
    assert (tmp_path / "result.json").read_text() == written


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--count", "41"), "noise.npz holds 40 images; 41 are needed"),
        (("--count", "19"), "--count 19: expected at least 20"),
        (("--features", "inception"), "needs --weights PATH and --sha256 HEX"),
        (("--weights", "file.pth"), "belong to --features inception"),
    ],
)
def test_questions_that_can_not_be_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], problem: str
) -> None:
    samples = npz(tmp_path / "noise.npz", images=np.zeros((40, 1, 8, 8), np.uint8))
    assert run(tmp_path, samples, *more) == 2
    assert problem in capsys.readouterr().err


def test_the_floor_needs_as_many_real_images_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = npz(tmp_path / "many.npz", images=np.zeros((749, 1, 8, 8), np.uint8))
    assert run(tmp_path, samples, "--count", "749") == 2
    assert (
        "digits has 1497 training images, which reference and floor share; 1498 are needed" in capsys.readouterr().err
    )


@pytest.fixture
def digits() -> Tensor:
    return load_dataset("digits", "test").images[:12]


def test_a_folder_an_archive_and_a_pipe_hold_the_same_images(
    tmp_path: Path, digits: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(digits):
        write_png(folder / f"{number:03}.png", image)
    archive = Path(npz(tmp_path / "only.npz", anything=digits))
    assert torch.equal(read_samples(str(folder), DIGITS), digits)
    assert torch.equal(read_samples(str(archive), DIGITS), digits)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(archive.read_bytes())))
    assert torch.equal(read_samples("-", DIGITS), digits)


def test_files_that_are_not_samples_are_refused(tmp_path: Path, digits: Tensor) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npz").write_text("not an archive")
    np.save(tmp_path / "bare.npy", digits.numpy())
    whole = Path(npz(tmp_path / "whole.npz", images=digits)).read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    npz(tmp_path / "two.npz", a=digits, b=digits)
    npz(tmp_path / "none.npz")
    npz(tmp_path / "float.npz", images=digits.float())
    npz(tmp_path / "pickle.npz", images=np.array([{}], dtype=object))
    problems = {
        "absent.npz": "absent.npz can not be read: No such file",
        "empty": "holds no .png files",
        "text.npz": "is not an .npz file of images",
        "bare.npy": "is not an .npz file of images",
        "half.npz": "is not an .npz file of images",
        "none.npz": "is not an .npz file of images",
        "pickle.npz": "is not an .npz file of images: Object arrays",
        "two.npz": "holds a, b: expected one array, or one called images",
        "float.npz": r"holds float32 of shape \[12, 1, 8, 8\], expected uint8 of shape \[N, 1, 8, 8\]",
    }
    for name, problem in problems.items():
        with pytest.raises(DataError, match=problem):
            read_samples(str(tmp_path / name), DIGITS)
    write_png(tmp_path / "empty" / "0.png", digits[0])
    with pytest.raises(DataError, match="0.png is 8x8 pixels, expected 9x8"):
        read_samples(str(tmp_path / "empty"), ImageShape(height=8, width=9, channels=1))
