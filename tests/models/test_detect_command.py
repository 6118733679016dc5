"""python -m models detect, on the digits bundle that ships."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.__main__ import main
from models.bundle import Bundle
from models.data import ImageDataset
from models.evaluation.detection import SCORES
from models.pixels import from_uint8
from models.training.run import save_checkpoint
from tests.conftest import ZOO

SETS = ["uniform", "constant", "mnist", "interpolation"]


def detect(out: Path, *more: str) -> list[str]:
    source = ["--bundle", str(ZOO / "digits-midrun"), "--device", "cpu", "--out", str(out)]
    return ["detect", *source, "--images", "60", "--against", *SETS, *more]


def read(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((out / "detection.json").read_text())
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("detect")
    assert main(detect(out)) == 0
    return out, read(out)


def test_the_result_says_all_that_it_depends_on(
    run: tuple[Path, dict[str, Any]], digits_bundle: Bundle, digits_test: ImageDataset
) -> None:
    out, result = run
    assert result["kind"] == "detection"
    assert result["weights"] == digits_bundle.manifest.weights_digest
    assert (result["data"], result["first"], result["images"], result["seed"]) == ("digits", 0, 60, 0)
    assert result["command"].startswith("python -m models detect --bundle ")
    others = digits_bundle.defence.energy(from_uint8(digits_test.images[60:120])).double()
    assert result["mean_energy"] == pytest.approx(float(others.mean()), rel=1e-4)
    assert result["paper"] == {}
    for name in ("detection.png", "images.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300


def test_scores_find_what_they_should(run: tuple[Path, dict[str, Any]]) -> None:
    """Noise by every score; constant colours, many of which are likelier than digits, by typicality above energy."""
    _, result = run
    found = {each["name"]: each["scores"] for each in result["sets"]}
    assert list(found) == SETS
    for scores in found.values():
        assert tuple(scores) == SCORES
        for each in scores.values():
            assert (each["usual"], each["unusual"]) == (60, 60)
            assert each["auroc"]["low"] <= each["auroc"]["value"] <= each["auroc"]["high"]
    assert all(found["uniform"][score]["auroc"]["value"] > 0.98 for score in SCORES)
    assert found["constant"]["typicality"]["auroc"]["low"] > 0.9
    assert found["constant"]["energy"]["auroc"]["value"] < found["constant"]["typicality"]["auroc"]["value"] - 0.05
    (average,) = result["averages"]
    assert average["over"] == SETS
    for score in SCORES:
        mean = sum(found[name][score]["auroc"]["value"] for name in SETS) / 4
        assert average["auroc"][score] == pytest.approx(mean, abs=1e-4)


def test_a_second_run_reads_what_the_first_has_measured(
    run: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of other images nothing is kept: a file belongs to its images and weights."""
    out, result = run
    before = {path: path.stat().st_mtime_ns for path in (out / "responses").iterdir()}
    assert len(before) == 6
    assert main(detect(out)) == 0
    assert read(out) | {"command": ""} == result | {"command": ""}
    assert {path: path.stat().st_mtime_ns for path in (out / "responses").iterdir()} == before
    assert "mnist" in capsys.readouterr().out
    next(path for path in before if path.name.startswith("uniform")).write_bytes(b"half")
    assert main(detect(out)) == 2
    assert "does not hold responses" in capsys.readouterr().err


def test_questions_that_can_not_be_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(detect(tmp_path, "--images", "151")) == 2
    assert "151 images from number 0, and as many others" in capsys.readouterr().err
    for wrong in ("sevens", "uniform=here"):
        with pytest.raises(SystemExit):
            main(detect(tmp_path, wrong))
        assert f"or DATASET=FOLDER; got '{wrong}'" in capsys.readouterr().err


def test_a_checkpoint_is_asked_as_its_bundle_is(
    run: tuple[Path, dict[str, Any]], tmp_path: Path, digits_bundle: Bundle
) -> None:
    training = digits_bundle.manifest.training
    assert training is not None
    weights = digits_bundle.defence.energy.state_dict()
    recipe = json.dumps(training.energy.recipe | {"kind": "energy"})
    save_checkpoint(tmp_path / "checkpoint.pt", {"recipe": recipe, "average": weights})
    source = ["--checkpoint", str(tmp_path / "checkpoint.pt"), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(["detect", *source, "--images", "60", "--against", "uniform"]) == 0
    found, expected = read(tmp_path / "out"), run[1]
    assert found["sets"][0] == expected["sets"][0]
    assert (found["data"], found["mean_energy"]) == ("digits", expected["mean_energy"])
