"""The baseline and the trade-off table on the digits bundle: numbers, files and resumption."""

import json
from pathlib import Path

import pytest
import torch

from attacks_eval.__main__ import main
from attacks_eval.baseline import attack_bare_classifier
from attacks_eval.pgd import PGD
from attacks_eval.threat_model import ThreatModel
from attacks_eval.walks import walk
from models.bundle import Bundle
from models.card_measurements import undominated
from models.data import ImageDataset
from models.evaluation.accuracy import purified_logits
from models.pixels import from_uint8, to_uint8
from models.purifier import Preset
from tests.conftest import ZOO

DIGITS = ["--bundle", str(ZOO / "digits-midrun"), "--budget", "40", "--attack-step", "8"]


def test_transfer_attack_on_digits_is_mostly_undone(tmp_path: Path) -> None:
    out = tmp_path / "baseline.json"
    assert main(["baseline", *DIGITS, "--images", "200", "--preset", "balanced", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["bare"]["clean"]["accuracy"] > 0.97
    assert result["bare"]["attacked"]["accuracy"] < 0.25
    row = result["presets"]["balanced"]
    assert row["clean"]["accuracy"] > 0.95
    assert row["transfer"]["low"] > result["bare"]["attacked"]["high"] + 0.3
    assert row["clean"]["total"] == row["transfer"]["total"] == 200
    assert result["command"].startswith("python -m attacks_eval baseline --bundle")


def test_finished_presets_are_kept_and_another_question_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "baseline.json"
    command = ["baseline", *DIGITS, "--images", "20", "--attack-steps", "2", "--out", str(out)]
    command += ["--preset", "fast", "--preset", "balanced"]
    assert main(command) == 0
    whole = json.loads(out.read_text())
    # As a run that was interrupted in its second preset leaves it.
    out.write_text(json.dumps(whole | {"presets": {"fast": whole["presets"]["fast"]}}))
    assert main(command) == 0
    resumed = json.loads(out.read_text())
    assert resumed["presets"]["fast"] == whole["presets"]["fast"]
    assert resumed["presets"]["balanced"]["transfer"] == whole["presets"]["balanced"]["transfer"]
    assert main([*command, "--seed", "1"]) == 2
    assert "another seed" in capsys.readouterr().err
    assert json.loads(out.read_text()) == resumed
    out.write_text("{")
    assert main(command) == 2
    assert "is not a result file" in capsys.readouterr().err


def test_bad_questions_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "x.json")]
    for arguments, message in (
        (["--images", "301"], "asked for 301 images from number 0; digits has 300"),
        (["--images", "10", "--first", "295"], "asked for 10 images from number 295"),
        (
            ["--images", "10", "--data", "cifar10"],
            "cifar10 has images of shape (3, 32, 32) in 10 classes; digits",
        ),
        (["--images", "10", "--preset", "best"], "unknown preset 'best'; digits-midrun has fast, balanced, strong"),
        (["--images", "10", "--budget", "-1"], "budget: Input should be greater than or equal to 0, got -1.0"),
    ):
        assert main(["baseline", *DIGITS, *arguments, *out]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("num_steps", "settle"), [(2, None), (60, None), (60, 0.5), (60, 3.0), (25, 1.0)])
def test_states_along_a_walk_are_those_of_shorter_and_of_settling_chains(
    digits_bundle: Bundle, digits_test: ImageDataset, num_steps: int, settle: float | None
) -> None:
    images = from_uint8(digits_test.images[:10])
    preset = Preset(num_steps=num_steps, settle=settle, step_size=0.06, temperature=1e-3, replicates=3)
    walks = walk(digits_bundle.defence, images, preset, [2, 25, 60], 3, seed=5)
    stops = walks.stops(num_steps, settle)
    assert stops.shape == (3, 10)
    logits = walks.logits_after(stops)
    assert torch.allclose(logits, purified_logits(digits_bundle.defence, images, preset, seed=5), atol=1e-4)
    assert (stops.unique().numel() > 1) == (settle is not None)


def test_trade_off_writes_a_row_for_each_point_of_the_grid(tmp_path: Path) -> None:
    out = tmp_path / "trade_off.json"
    grid = ["--steps", "4", "2", "--replicates", "1", "2", "--step-size", "0.03", "0.06"]
    command = ["trade-off", *DIGITS, "--first", "100", "--images", "20", *grid, "--out", str(out)]
    assert main(command) == 0
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 8
    assert [row["image_steps"] for row in rows[:4]] == [2, 4, 4, 8]
    assert main(command) == 0
    assert json.loads(out.read_text())["rows"] == rows
    assert all(row["attacked_image_steps"] == row["image_steps"] for row in rows), "every chain runs every step"
    assert "white_box" not in json.loads(out.read_text())
    assert main([*command, "--steps", "8"]) == 2, "another grid must not be answered with the old rows"


def test_knowing_the_defence_is_measured_on_the_front_alone_and_breaks_more(
    tmp_path: Path,
) -> None:
    out = tmp_path / "trade_off.json"
    grid = ["--steps", "2", "40", "--replicates", "1", "4", "--step-size", "0.05", "--settle", "2"]
    command = ["trade-off", *DIGITS, "--budget", "40", "--first", "100", "--images", "12", *grid, "--white-box", "12"]
    assert main([*command, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    chain = ("num_steps", "settle", "replicates")
    front = {tuple(row[key] for key in chain[:2]) for row in undominated(result["rows"])}
    assert {tuple(row[key] for key in chain[:2]) for row in result["white_box"]} == front
    rows = {tuple(row[key] for key in chain): row for row in result["rows"]}
    longest = max(result["white_box"], key=lambda row: row["num_steps"])
    assert longest["held"]["total"] == 12
    assert longest["held"]["correct"] < rows[longest["num_steps"], longest["settle"], 4]["transfer"]["correct"]
    assert rows[40, 2.0, 4]["image_steps"] < rows[40, 2.0, 4]["attacked_image_steps"] <= 160
    before = out.read_bytes()
    assert main([*command, "--out", str(out)]) == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value"), [("--images", "0"), ("--images", "-290"), ("--steps", "0"), ("--step-size", "-1")]
)
def test_numbers_that_make_no_sense_are_refused_by_option(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["trade-off", *DIGITS, option, value])
    assert f"argument {option}: expected a" in capsys.readouterr().err


def test_a_fractional_budget_is_not_exceeded_by_rounding(digits_bundle: Bundle, digits_test: ImageDataset) -> None:
    images = from_uint8(digits_test.images[:50])
    threat, config = ThreatModel(budget=2.7), PGD(steps=5, attack_step=1)
    attacked = attack_bare_classifier(digits_bundle.defence, images, digits_test.labels[:50], threat, config, 0)
    moved = (to_uint8(attacked).int() - digits_test.images[:50].int()).abs()
    assert moved.max() == 2
