"""Learning from attacked images: the attack's closed forms, what is minimised, and what a small classifier gains."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.bundle import load_bundle
from models.data import DataSection, held_out_set, load_dataset, open_training_set
from models.errors import ConfigError, DataError
from models.langevin import run_langevin
from models.networks import build_network, load_weights
from models.noise import SeededNoise
from models.pixels import LEVEL_WIDTH, from_uint8
from models.training.adversarial import Adversarial, adversarial_loss, attack, count_holding
from models.training.classifier_objective import Purifying, StraightThrough
from models.training.program import train_recipe
from models.training.recipe import ClassifierRecipe, load_recipe
from models.training.run import load_checkpoint, load_trained, read_metrics
from tests.conftest import ZOO

PGD = Adversarial(epsilon=8, start=8, step=2, steps=10, stay_inside=True)
N_FGSM = Adversarial(epsilon=8, start=16, step=8)
DIGITS = [
    "data.held_out=200",
    "network.arguments.stem=16",
    "network.arguments.widths=[16, 32]",
    "training.epochs=12",
    "training.batch_size=64",
    "training.max_noise=0.0",
]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def linear(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, classes))


def test_attack_on_a_linear_score_ends_at_the_corner_of_the_ball(generator: torch.Generator) -> None:
    weights = torch.randn(3, 2, 2, generator=generator)
    images = torch.rand(5, 3, 2, 2, generator=generator) - 0.5
    found = attack(lambda x: (weights * x).sum(), images, PGD.uniform(images, generator), PGD)
    torch.testing.assert_close(found, images + 8 * LEVEL_WIDTH * weights.sign())


def test_n_fgsm_may_leave_the_ball_but_not_the_range_of_pixels(generator: torch.Generator) -> None:
    images = torch.rand(50, 3, 2, 2, generator=generator) * 2 - 1
    found = attack(lambda x: x.sum(), images, N_FGSM.uniform(images, generator), N_FGSM)
    moved = (found - images) / LEVEL_WIDTH
    assert 22 < float(moved.max()) <= 24.001
    assert float(moved.min()) >= -8.001
    assert float(found.max()) <= 1.0


def test_loss_is_that_of_attacked_images_and_parameters_learn_from_it_alone(generator: torch.Generator) -> None:
    network, labels = linear(), torch.tensor([0, 1, 2, 0])
    images = torch.rand(4, 3, 2, 2, generator=generator) - 0.5
    loss, learned_from = adversarial_loss(network, list(network.parameters()), images, labels, N_FGSM, _again())
    found = torch.autograd.grad(loss, list(network.parameters()))

    attacked = (images + N_FGSM.uniform(images, _again())).requires_grad_(True)
    (gradient,) = torch.autograd.grad(functional.cross_entropy(network(attacked), labels, reduction="sum"), attacked)
    moved = (attacked + 8 * LEVEL_WIDTH * gradient.sign()).detach()
    torch.testing.assert_close(learned_from, moved)
    expected = functional.cross_entropy(network(moved), labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, list(network.parameters())))


def test_trades_adds_the_divergence_that_the_attack_made(generator: torch.Generator) -> None:
    network, labels = linear(), torch.tensor([0, 1])
    images = torch.rand(2, 3, 2, 2, generator=generator) - 0.5
    clean = functional.cross_entropy(network(images), labels).detach()

    def loss(weight: float) -> Tensor:
        config = Adversarial(start=0.26, step=2, steps=10, stay_inside=True, trades_weight=weight)
        return adversarial_loss(network, list(network.parameters()), images, labels, config, _again())[0].detach()

    divergences = [(float(loss(weight) - clean)) / weight for weight in (1.0, 6.0)]
    assert divergences[0] > 1e-4
    assert divergences[0] == pytest.approx(divergences[1], rel=1e-3)


def test_what_is_held_out_is_not_learned_from() -> None:
    whole = load_dataset("digits", "train")
    data = DataSection(name="digits", held_out=100)
    learned, held_out = open_training_set(data), held_out_set(data)
    assert held_out is not None
    assert len(learned) == len(whole) - 100
    assert torch.equal(held_out.images, whole.images[-100:])
    assert torch.equal(torch.cat([learned.images, held_out.images]), whole.images)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="1497 images, 1497 cannot be held out"):
        open_training_set(DataSection(name="digits", held_out=1497))


def test_noise_besides_the_attacks_own_start_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected max_noise 0, got 0\.5"):
        load_recipe("cifar10_robust_classifier", ["training.max_noise=0.5"])


def test_a_classifier_that_learned_from_attacks_holds_against_them(tmp_path: Path) -> None:
    attacked = ["training.adversarial={ epsilon = 32, start = 64, step = 32 }"]
    held = {}
    for name, more in {"natural": [], "robust": attacked}.items():
        recipe = load_recipe("digits_classifier", [*DIGITS, *more])
        train_recipe(recipe, tmp_path / name, False, False, torch.device("cpu"))
        held[name] = _held_at_32(tmp_path / name)
    assert held["robust"] > held["natural"] + 0.2
    (last,) = read_metrics(tmp_path / "robust")[-1:]
    assert last["held_out_accuracy"] > 0.9
    assert "test_accuracy" not in last


def test_a_purifier_in_learning_is_seen_by_the_attack_as_bpda_sees_it() -> None:
    config = Purifying(bundle=ZOO / "digits-midrun", num_steps=5, step_size=0.01, temperature=1e-3)
    images = from_uint8(load_dataset("digits", "test").images[:16]).requires_grad_(True)
    purifier = StraightThrough(config, _again(), torch.device("cpu"))
    purified = purifier(images)
    energy = load_bundle(ZOO / "digits-midrun", torch.device("cpu")).defence.energy
    expected = run_langevin(energy, images.detach(), config, randn_like=SeededNoise(_again()))[0]
    torch.testing.assert_close(purified, expected)
    weights = torch.randn(images.shape, generator=_again())
    (gradient,) = torch.autograd.grad((weights * purified).sum(), images)
    torch.testing.assert_close(gradient, weights)


def test_learning_behind_a_purifier_goes_on_from_another_run_and_resumes(tmp_path: Path) -> None:
    first = load_recipe("digits_classifier", [*DIGITS, "training.epochs=1"])
    train_recipe(first, tmp_path / "first", False, False, torch.device("cpu"))
    chain = f"bundle = '{ZOO / 'digits-midrun'}', num_steps = 3, step_size = 0.01, temperature = 1e-3"
    further = [
        *DIGITS,
        "training.learning_rate=1e-9",
        "training.average_decay=0.0",
        f"training.purifier={{ {chain} }}",
        f"weights='{tmp_path / 'first' / 'checkpoint.pt'}'",
    ]
    losses = {}
    for name, runs in {"whole": (2,), "parts": (1, 2)}.items():
        for epochs in runs:
            recipe = load_recipe("digits_classifier", [*further, f"training.epochs={epochs}"])
            train_recipe(recipe, tmp_path / name, True, True, torch.device("cpu"))
        losses[name] = [line["loss"] for line in read_metrics(tmp_path / name)]
    assert losses["whole"][1] == losses["parts"][1]
    # With next to no learning rate it is still what it began from.
    (began,) = (load_checkpoint(tmp_path / "first" / "checkpoint.pt")["average"],)
    ended = load_checkpoint(tmp_path / "whole" / "checkpoint.pt")["average"]
    torch.testing.assert_close(ended["head.weight"], began["head.weight"])


def _held_at_32(run: Path) -> float:
    """Share of the held-out digits that keep their label under PGD-10 at 32/255."""
    state, table = load_trained(run / "checkpoint.pt", "classifier")
    recipe = ClassifierRecipe(**table)
    network = build_network(recipe.network.name, recipe.network.arguments).eval().requires_grad_(False)
    load_weights(network, state["average"], str(run))
    images = held_out_set(recipe.data)
    assert images is not None
    pixels = from_uint8(images.images)
    return count_holding(lambda x: network(recipe.normalisation(x)), pixels, images.labels, 32, _again()) / len(pixels)


def _again() -> torch.Generator:
    return torch.Generator().manual_seed(7)
