"""The density within a classifier, as learning sees it: its closed form, whom it moves, and how it goes on."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.data import ImageDataset
from models.errors import ConfigError
from models.pixels import Normalisation, from_uint8
from models.training.joint_density import Joint, JointDensity
from models.training.program import train_recipe
from models.training.recipe import load_recipe
from models.training.run import load_checkpoint, read_metrics

PLAIN = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Of [0, 1] to [-1, 1]: the network reads what the chains hold."""
STILL = {"num_steps": 0, "step_size": 0.01, "temperature": 1e-4, "data_noise": 0.0}


@pytest.fixture
def data() -> ImageDataset:
    drawn = torch.Generator().manual_seed(3)
    images = torch.randint(256, (6, 3, 2, 2), generator=drawn, dtype=torch.uint8)
    return ImageDataset("made", images, torch.zeros(6, dtype=torch.int64), ("a", "b", "c"))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


def energies(classifier: nn.Module, images: Tensor) -> Tensor:
    return -classifier(images).logsumexp(1)


def density(config: Joint, data: ImageDataset) -> JointDensity:
    return JointDensity(config, data, PLAIN, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("positives", ["clean", "both"])
def test_the_term_is_the_difference_of_mean_energies_and_their_squares(data: ImageDataset, positives: str) -> None:
    classifier = network()
    config = Joint(
        **STILL, bank_size=6, batch_size=6, weight=2.0, penalty=0.5, rejuvenation_prob=0.0, positives=positives
    )  # type: ignore[arg-type]
    term = density(config, data)
    negatives = term.state_dict()["states"].clone()
    clean, attacked = from_uint8(data.images), from_uint8(255 - data.images)
    seen = torch.cat([clean, attacked]) if positives == "both" else clean
    low, high = energies(classifier, seen), energies(classifier, negatives)
    expected = 2.0 * (low.mean() - high.mean()) + 0.5 * (low.square().mean() + high.square().mean())
    found = term.loss(classifier, clean, attacked)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected, list(classifier.parameters()))
    torch.testing.assert_close(torch.autograd.grad(found, list(classifier.parameters())), wanted)


def test_chains_follow_the_classifiers_own_energy_and_stay_in_the_bank(data: ImageDataset) -> None:
    """Of a linear classifier with one class the energy is linear: every step moves a chain by the same drift."""
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    config = Joint(
        num_steps=5, step_size=1e-4, temperature=1e-8, data_noise=0.0, bank_size=6, batch_size=6, rejuvenation_prob=0.0
    )
    term = density(config, data)
    before = term.state_dict()["states"].clone()
    term.loss(classifier, from_uint8(data.images))
    moved = term.state_dict()["states"] - before
    drift = config.drift_rate * 5 * classifier[1].weight.detach().reshape(3, 2, 2)
    torch.testing.assert_close(moved, drift.expand_as(moved), atol=20 * 1e-4, rtol=0.0)
    assert float(drift.abs().max()) > 0.1


def test_no_parameter_is_left_out_of_learning(data: ImageDataset) -> None:
    classifier = network()
    config = Joint(num_steps=2, step_size=0.01, temperature=1e-4, bank_size=6, batch_size=3)
    density(config, data).loss(classifier, from_uint8(data.images)).backward()  # type: ignore[no-untyped-call]
    assert all(each.requires_grad and each.grad is not None for each in classifier.parameters())


def test_learning_of_labels_and_density_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    overrides = [
        "data.held_out=200",
        "network.arguments.stem=8",
        "network.arguments.widths=[8, 16]",
        "training.batch_size=64",
        "training.max_noise=0.0",
        "training.learning_rate=1e-9",  # its schedule spans all epochs, of which one run here has fewer
        "training.joint={ num_steps = 5, step_size = 0.01, temperature = 1e-4, bank_size = 200, batch_size = 32 }",
    ]
    for name, runs in {"whole": (2,), "parts": (1, 2)}.items():
        for epochs in runs:
            recipe = load_recipe("digits_classifier", [*overrides, f"training.epochs={epochs}"])
            train_recipe(recipe, tmp_path / name, True, True, torch.device("cpu"))
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoint.pt")["bank"] for name in ("whole", "parts"))
    torch.testing.assert_close(whole["states"], parts["states"])
    assert torch.equal(whole["ages"], parts["ages"])
    assert int(whole["ages"].max()) > 3
    losses = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in ("whole", "parts")]
    # Batch norm's statistics stand still: labels are learned by the function that chains follow.
    network = load_checkpoint(tmp_path / "whole" / "checkpoint.pt")["network"]
    assert torch.equal(network["stem.1.running_mean"], torch.zeros(8))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_attacked_positives_that_nothing_makes_are_refused() -> None:
    joint = "training.joint={ num_steps = 5, step_size = 0.01, temperature = 1e-4, positives = 'both' }"
    with pytest.raises(ConfigError, match="joint.positives is 'both', and nothing attacks"):
        load_recipe("digits_classifier", [joint])
