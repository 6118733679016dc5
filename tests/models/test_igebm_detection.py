"""The detection experiment on the digits bundle: its numbers are those of the scores themselves."""

from pathlib import Path

import pytest
import torch

from models.bundle import Bundle
from models.data import ImageDataset
from models.evaluation.density import spread
from models.evaluation.detecting import RESPONSES, Question, detect_sets, subject_of
from models.evaluation.detection_run import PAPER, Average, DetectionResult, SetResult
from models.evaluation.detection_statistics import auroc, detection
from models.pixels import from_uint8
from models.reproduce.igebm_detection import Size, explain, remake
from tests.conftest import ZOO

CPU = torch.device("cpu")
SIZE = Size(bundle=ZOO / "digits-midrun", first=3, images=60, against=("uniform", "constant", "cifar100"))


@pytest.fixture(autouse=True)
def without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def test_it_finds_what_the_scores_say_and_goes_on_to_the_same(
    tmp_path: Path, digits_bundle: Bundle, digits_test: ImageDataset
) -> None:
    found = remake(tmp_path, CPU, SIZE)
    numbers = {number.what: number.ours for number in found.numbers}
    assert len(numbers) == 3 * (2 + 1) + 1
    assert numbers["AUROC: cifar100, not run"] is None
    for score in ("energy", "typicality", "length of the gradient"):
        mean = sum(numbers[f"AUROC by {score}: {name}"] or 0.0 for name in ("uniform", "constant")) / 2
        assert numbers[f"mean AUROC by {score}: uniform, constant"] == pytest.approx(mean, abs=1e-3)
    assert numbers["AUROC by energy: uniform"] == pytest.approx(1.0, abs=0.02)

    usual = digits_bundle.defence.energy(from_uint8(digits_test.images[3:63])).detach()
    levels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    flat = digits_bundle.defence.energy(from_uint8(levels)).detach()
    every_level = auroc(usual, flat)  # of which the experiment draws 60
    assert numbers["AUROC by energy: constant"] == pytest.approx(every_level, abs=0.1)

    kept = sorted((tmp_path / RESPONSES).iterdir())
    written = [path.stat().st_mtime_ns for path in kept[1:]]
    kept[0].unlink()
    again = remake(tmp_path, CPU, SIZE)
    assert again.model_dump(exclude={"cpu_hours"}) == found.model_dump(exclude={"cpu_hours"})
    assert [path.stat().st_mtime_ns for path in kept[1:]] == written
    assert kept[0].exists()


def test_its_details_are_the_shared_result(tmp_path: Path, digits_bundle: Bundle) -> None:
    found = remake(tmp_path / "experiment", CPU, SIZE)
    question = Question("digits", against=dict.fromkeys(SIZE.against), first=3, images=60)
    result = detect_sets(subject_of(digits_bundle, CPU), question, tmp_path / "question")
    assert found.details == result.model_dump(mode="json")
    assert "from number 3" in found.setting


def of_energies(name: str, values: torch.Tensor, usual: torch.Tensor) -> SetResult:
    scores = {score: detection(usual, values) for score in ("energy", "typicality", "gradient_norm")}
    return SetResult(name=name, energies=spread(values), scores=scores)


def test_why_compares_with_the_paper_over_the_same_sets_alone() -> None:
    usual = torch.arange(100.0)
    sets = (of_energies("constant", usual - 200, usual), of_energies("blurred", usual + 200, usual))
    average = {"auroc": dict.fromkeys(sets[0].scores, 0.25)}
    result = DetectionResult(
        weights="",
        precision="float32",
        data="cifar10",
        first=0,
        images=100,
        seed=0,
        energies=spread(usual),
        mean_energy=0.0,
        sets=sets,
        averages=(Average(over=("constant", "blurred"), **average), Average(over=("constant",), paper=0.62, **average)),
        paper=PAPER,
        paper_note="",
        not_run={},
    )
    why = explain(result)
    assert "Over constant the paper's own mean is 0.30, ours 0.25." in why
    assert "Over constant, blurred" not in why
    assert "missed by it, are constant (energy 0.00, typicality 0.00): what is smooth" in why
