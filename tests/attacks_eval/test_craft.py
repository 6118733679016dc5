from pathlib import Path

import pytest
import torch

from attacks_eval.__main__ import main
from models.bundle import Bundle
from models.data import ImageDataset
from models.image_files import read_image, write_png
from tests.conftest import ZOO

BUNDLE = ["--bundle", str(ZOO / "digits-midrun"), "--budget", "60", "--attack-step", "12"]


@pytest.fixture
def digit(tmp_path: Path, digits_test: ImageDataset) -> Path:
    path = tmp_path / "digit.png"
    write_png(path, digits_test.images[0])
    return path


def test_the_written_file_is_inside_the_budget_and_fools_the_bare_classifier(
    digit: Path, tmp_path: Path, digits_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "attacked.png"
    assert main(["craft", str(digit), "-o", str(out), *BUNDLE]) == 0
    clean, attacked = (read_image(path, digits_bundle.manifest.image).int() for path in (digit, out))
    assert 0 < (clean - attacked).abs().max() <= 60
    words = capsys.readouterr().out.split()
    assert words[words.index("said") + 1].strip(",") != words[words.index("says") + 1]


def test_an_unknown_label_is_answered_with_the_known_ones(
    digit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["craft", str(digit), "-o", str(tmp_path / "x.png"), "--label", "cat", *BUNDLE]) == 2
    assert "unknown label 'cat'; the bundle knows 0, 1, 2" in capsys.readouterr().err


def test_an_image_of_another_size_is_refused_with_both_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wide.png"
    write_png(path, torch.zeros(1, 8, 9, dtype=torch.uint8))
    assert main(["craft", str(path), "-o", str(tmp_path / "x.png"), *BUNDLE]) == 2
    assert "is 9x8 pixels, expected 8x8" in capsys.readouterr().err
