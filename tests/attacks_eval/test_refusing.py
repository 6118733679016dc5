"""Refusing by suspicion on the digits bundle: counts that add up, and an attacker who knows and gains by it."""

import json
from pathlib import Path

import pytest
import torch

from attacks_eval.__main__ import main
from attacks_eval.refusing import _least_suspicious, _rows
from models.bundle import Bundle
from models.data import ImageDataset
from models.pixels import from_uint8
from tests.conftest import ZOO

DIGITS = ["--bundle", str(ZOO / "digits-midrun"), "--budget", "40", "--attack-step", "8"]


def test_rows_count_who_is_answered_and_who_is_right() -> None:
    answers, labels = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 0, 0])
    rows = _rows(answers, torch.tensor([0.2, 0.93, 0.5, 0.999]), labels)
    found = [(row["answered"]["correct"], row["right_of_answered"]["correct"], row["wrong"]["correct"]) for row in rows]
    assert [row["threshold"] for row in rows] == [0.9, 0.95, 0.99, None]
    assert found == [(2, 1, 1), (3, 2, 1), (3, 2, 1), (4, 2, 2)]
    assert _rows(answers, torch.ones(4), labels)[0]["right_of_answered"] is None


def test_the_attacker_who_knows_sends_what_is_wrong_and_looks_usual(
    digits_bundle: Bundle, digits_test: ImageDataset
) -> None:
    """Against wrong labels both copies are wrong, and the clean one looks more usual; if none is, the last is sent."""
    images, labels = from_uint8(digits_test.images[:8]), digits_test.labels[:8]
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    calibration = digits_bundle.manifest.calibration["balanced"]
    candidates = [images, (images + 0.6 * noise).clamp(-1, 1)]
    wrong = (labels + 1) % 10
    assert torch.equal(_least_suspicious(digits_bundle, calibration, candidates, wrong, 0), images)
    assert torch.equal(_least_suspicious(digits_bundle, calibration, candidates[:1] * 2, labels, 0), images)


def test_the_command_writes_what_it_shows_and_does_not_measure_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "refusing.json"
    command = ["refusing", *DIGITS, "--images", "100", "--attack-steps", "10", "--out", str(out)]
    assert main(command) == 0
    result = json.loads(out.read_text())
    never = {sender: rows[-1] for sender, rows in result["senders"].items()}
    assert all(row["answered"]["correct"] == 100 for row in never.values())
    assert never["clean"]["wrong"]["correct"] <= never["unaware"]["wrong"]["correct"]
    for sender, rows in result["senders"].items():
        answered = [row["answered"]["correct"] for row in rows]
        assert answered == sorted(answered), sender
    # Of clean images about one in ten is refused above 0.9.
    assert 75 <= result["senders"]["clean"][0]["answered"]["correct"] <= 99
    aware, unaware = (result["senders"][sender][0]["wrong"]["correct"] for sender in ("aware", "unaware"))
    assert aware >= unaware
    capsys.readouterr()
    assert main(command) == 0
    assert json.loads(out.read_text()) == result
    assert "asking" not in capsys.readouterr().out
