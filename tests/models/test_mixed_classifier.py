"""Two classifiers in one: who decides when, what it is made of, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from models.__main__ import main
from models.bundle import load_bundle
from models.networks import build_network
from models.networks.mixed_classifier import MixedClassifier, mixture, overrules
from models.training.frozen_parts import trained_classifier
from tests.conftest import ZOO

CPU = torch.device("cpu")
TINY = {"channels": 1, "classes": 3, "stem": 4, "widths": [4, 4]}


class Says(nn.Module):
    """The same logits for every image."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


def mixed(robust: list[float], accurate: list[float], weight: float = 0.6, sharpness: float = 1.0) -> torch.Tensor:
    """The mixture's probabilities of what the two say."""
    network = MixedClassifier(TINY, TINY, weight, sharpness)
    network.robust, network.accurate = Says(robust), Says(accurate)
    return network(torch.zeros(1, 1, 8, 8))[0].exp()


def test_it_is_the_weighted_mean_of_probabilities() -> None:
    expected = 0.6 * torch.tensor([1.0, 2.0, 0.5]).mul(2).softmax(0) + 0.4 * torch.tensor([0.0, 1.0, 3.0]).softmax(0)
    torch.testing.assert_close(mixed([1.0, 2.0, 0.5], [0.0, 1.0, 3.0], sharpness=2.0), expected)


@pytest.mark.parametrize(("logit", "sharpness", "answer"), [(1.0, 1.0, 1), (1.0, 3.0, 0), (8.0, 1.0, 0)])
def test_the_robust_one_overrules_where_its_lead_exceeds_the_others_weight(
    logit: float, sharpness: float, answer: int
) -> None:
    """However sure the accurate one is of class 1: weight 0.6 needs a lead of 0.4 / 0.6 in sharpened probability."""
    probabilities = torch.tensor([logit, 0.0, 0.0]).mul(sharpness).softmax(0)
    assert (float(probabilities[0] - probabilities[1]) > 2 / 3) == (answer == 0)
    assert int(mixed([logit, 0.0, 0.0], [-90.0, 90.0, -90.0], sharpness=sharpness).argmax()) == answer


def test_where_it_overrules_no_accurate_one_changes_the_answer_and_elsewhere_the_worst_does() -> None:
    generator = torch.Generator().manual_seed(0)
    robust, labels = 2 * torch.randn(500, 10, generator=generator), torch.randint(10, (500,), generator=generator)
    sure = overrules(robust, labels, 0.7, 2.0)
    assert 20 < int(sure.sum()) < 480
    rival = robust.scatter(1, labels[:, None], -torch.inf).argmax(1)
    worst = torch.full_like(robust, -60.0).scatter(1, rival[:, None], 60.0)
    assert torch.equal(mixture(robust, worst, 0.7, 2.0).argmax(1) == labels, sure)
    for _ in range(20):
        said = 30 * torch.randn(500, 10, generator=generator)
        assert bool((mixture(robust, said, 0.7, 2.0).argmax(1) == labels)[sure].all())


def test_probabilities_that_round_to_nothing_still_have_slopes() -> None:
    network = MixedClassifier(TINY, TINY, 0.6, 1.0)
    accurate = torch.tensor([[0.0, 300.0, 0.0]], requires_grad=True)
    network.robust, network.accurate = Says([300.0, 0.0, 0.0]), nn.Identity()
    lead = network(accurate)
    (slope,) = torch.autograd.grad(lead[0, 2], accurate)
    assert bool(slope.any())


@pytest.mark.parametrize(
    ("weight", "sharpness", "message"),
    [(0.5, 1.0, "between 1/2 and 1, got 0.5"), (1.0, 1.0, "got 1.0"), (0.6, 0.0, "sharpness must be above 0")],
)
def test_settings_that_mean_nothing_are_refused(weight: float, sharpness: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixedClassifier(TINY, TINY, weight, sharpness)


def test_two_bundles_classifiers_become_one_of_a_third(tmp_path: Path) -> None:
    shipped = ZOO / "digits-midrun"
    folder, bundle = tmp_path / "mixed", tmp_path / "bundle"
    command = ["mix", str(shipped), str(shipped), "--robust-weight", "0.7", "--sharpness", "2", "--out", str(folder)]
    assert main(command) == 0
    own, normalisation = trained_classifier(shipped, CPU)
    both, read = trained_classifier(folder, CPU)
    assert read == normalisation
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = own(images)
    expected = (0.7 * (2 * logits).softmax(1) + 0.3 * logits.softmax(1)).log()
    torch.testing.assert_close(both(images), expected, atol=1e-5, rtol=1e-4)
    assert main(["export", str(shipped), "--classifier", str(folder), "--out", str(bundle)]) == 0
    made = load_bundle(bundle, CPU)
    torch.testing.assert_close(made.defence.classifier(images), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        load_bundle(bundle, CPU, "onnx").defence.classifier(images), expected, atol=1e-4, rtol=1e-3
    )
    record = load_bundle(shipped, CPU).manifest.training
    assert record is not None
    assert record.classifier is not None
    assert made.manifest.training is not None
    assert made.manifest.training.classifier is not None
    assert made.manifest.training.classifier.updates == 2 * record.classifier.updates


def test_what_cannot_be_mixed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = ZOO / "digits-midrun"
    command = ["mix", str(shipped), str(ZOO / "cifar10-midrun"), "--robust-weight=0.7", "--sharpness=2"]
    assert main([*command, f"--out={tmp_path / 'mixed'}"]) == 2
    assert "read images of different normalisations" in " ".join(capsys.readouterr().err.split())
    recipe = {"kind": "classifier", "network": {"name": "light", "arguments": {}}, "normalisation": {}}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "recipe.json").write_text(json.dumps(recipe))
    command[1] = str(tmp_path / "other")
    assert main([*command, f"--out={tmp_path / 'mixed'}"]) == 2
    assert not (tmp_path / "mixed").exists()


def test_it_is_built_by_name() -> None:
    arguments = {"robust": TINY, "accurate": TINY, "robust_weight": 0.6, "sharpness": 1.5}
    assert build_network("mixed_classifier", arguments)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
