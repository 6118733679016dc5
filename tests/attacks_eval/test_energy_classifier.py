"""argmin_y E(x, y) with refinement as a defence: energies whose steps and gradients are known on paper."""

import pytest
import torch
from torch import Tensor, nn

from attacks_eval.energy_classifier import RefiningPurifier, energy_defence
from attacks_eval.evaluator import Evaluator
from attacks_eval.gradients import BPDA, FULL, SMOOTH, GradMode
from attacks_eval.plans import Plan, pgd, transfer_from
from attacks_eval.threat_model import Linf
from models.errors import NetworkError
from models.networks import build_network
from models.streams import ChainNoise, Stream
from models.tasks.energy_classifier import EnergyClassifier, Refinement, fit_bias, refine
from tests.attacks_eval.searching import SHAPE, WEIGHTS, on_levels

SILENT = Refinement(num_steps=10, step_size=1e-6, temperature=5e-12, budget=8)
"""c = 0.1, and next to no noise."""
FAR = 64.0
CENTRES = torch.linspace(-0.4, 0.4, 3)


class LinearEnergy(nn.Module):
    """E(x, 0) = 0, E(x, 1) = -strength w x: far from the corner of its activation."""

    classes = 2

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.activation = nn.LeakyReLU(0.2)
        self.strength = strength

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        score: Tensor = self.activation(x.flatten(1) @ WEIGHTS + FAR) - FAR
        return -self.strength * labels * score


class QuadraticEnergies(nn.Module):
    """E(x, y) = |x - c[y]|^2 / 2."""

    classes = 3

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return (x - CENTRES[labels].view(-1, 1, 1, 1)).flatten(1).square().sum(1) / 2


def noise(count: int) -> ChainNoise:
    return ChainNoise([Stream(("test", row)) for row in range(count)])


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8


def test_linear_energies_move_each_copy_by_its_own_slope_and_no_further_than_the_ball() -> None:
    """E falls by c K |w|^2 for the class with a slope, or by r |w|_1 where the ball stops all pixels."""
    x, radius = images(), 8 * 2 / 255
    for strength, expected in ((1e-3, 10 * 0.1 * 1e-6 * WEIGHTS.square().sum()), (100.0, None)):
        classifier = EnergyClassifier(LinearEnergy(strength), 3)
        fall = expected if expected is not None else 100.0 * radius * WEIGHTS.abs().sum()
        before, after = classifier(x), classifier(refine(classifier, x, SILENT))
        assert torch.allclose(after[:, 0], before[:, 0])
        assert torch.allclose(after[:, 1] - before[:, 1], fall.expand(4), rtol=2e-2)
    copies = refine(classifier, x, SILENT)
    assert float((copies - classifier.copies(x)).abs().max()) <= radius + 1e-6
    clamped = SILENT.model_copy(update={"gradient_clamp": 0.01})
    moved = refine(classifier, x, clamped)[:, 3:] - x
    assert torch.allclose(moved, (0.01 * WEIGHTS.sign()).view(SHAPE).expand_as(moved), atol=1e-4)


@pytest.mark.parametrize(
    ("mode", "power"), [(BPDA, 1), (FULL, 2), (SMOOTH, 2), (GradMode.model_validate("truncated:4"), 1.4)]
)
def test_on_quadratic_energies_the_gradient_is_the_closed_form(mode: GradMode, power: float) -> None:
    """The refined copy is c + 0.9^10 (x - c), and the logit's gradient -0.9^10 (x - c) times how it hangs on x."""
    config = SILENT.model_copy(update={"budget": 255.0})
    purifier, x = RefiningPurifier(EnergyClassifier(QuadraticEnergies(), 3), config), images()
    refined, pull_back = purifier.record(x, noise(4), mode)
    for label, centre in enumerate(CENTRES):
        own = slice(3 * label, 3 * label + 3)
        assert torch.allclose(refined[:, own], centre + 0.9**10 * (x - centre), atol=1e-4)
        v = torch.zeros_like(refined)
        v[:, own] = centre - refined[:, own]
        assert torch.allclose(pull_back(v), -(0.9 ** (10 * power)) * (x - centre), atol=1e-4)


def smooth_energy(activation: str = "silu") -> nn.Module:
    torch.manual_seed(0)
    arguments = {"channels": 3, "stem": 6, "blocks": [[6, True]], "classes": 3, "activation": activation}
    network = build_network("residual", arguments).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.7)
    return network


@pytest.mark.parametrize(
    "changes", [{}, {"gradient_clamp": 0.05}, {"budget": 1.0}, {"box": 0.5}, {"gradient_clamp": 0.1, "budget": 2.0}]
)
def test_the_exact_gradient_is_that_of_plain_autograd(changes: dict[str, float]) -> None:
    """Through clamped gradients, the ball's edge and a box, with the chain's own noise, written out step by step."""
    config = Refinement(num_steps=4, step_size=0.02, temperature=0.002, budget=8).model_copy(update=changes)
    energy = smooth_energy()
    purifier, drawn = RefiningPurifier(EnergyClassifier(energy, 3), config), noise(6)
    x = images(6).requires_grad_()
    ends, radius = [], config.budget * 2 / 255
    for label in range(3):
        z = x
        for step in range(config.num_steps):
            (slope,) = torch.autograd.grad(energy(z, torch.full((6,), label)).sum(), z, create_graph=True)
            if config.gradient_clamp is not None:
                slope = slope.clamp(-config.gradient_clamp, config.gradient_clamp)
            own = drawn.at(step, torch.empty(6, 9, 4, 4))[:, 3 * label : 3 * label + 3]
            z = z - config.drift_rate * slope + config.step_size * own
            z = z if config.box is None else z.clamp(-config.box, config.box)
            z = torch.minimum(torch.maximum(z, x - radius), x + radius)
        ends.append(z)
    expected = torch.cat(ends, 1)
    v = torch.randn(expected.shape, generator=torch.Generator().manual_seed(4))
    (by_autograd,) = torch.autograd.grad(expected, x, v)
    refined, pull_back = purifier.record(x.detach(), noise(6), FULL)
    error = (refined - expected).detach().abs().flatten()
    assert float(error.quantile(0.99)) < 1e-5
    # Chains fold the normalised weights once and ask gradients in float32 whatever x is; at one element that rounding
    # grows: the chain above, in float32 and in float64, differs by 4e-5 there.
    assert float(error.max()) < 1e-4
    assert torch.allclose(pull_back(v), by_autograd, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(purifier.record(x.detach(), noise(6), BPDA)[1](v), by_autograd, rtol=1e-2, atol=1e-2)


def test_piecewise_linear_energies_are_blind_and_their_twin_is_not() -> None:
    purifier = RefiningPurifier(EnergyClassifier(smooth_energy(activation="leaky"), 3), SILENT, smoothing=0.05)
    assert purifier.piecewise_linear(images())
    assert not purifier.twin_is_blind(images())
    assert not RefiningPurifier(EnergyClassifier(smooth_energy(), 3), SILENT).piecewise_linear(images())


def test_linear_energies_break_exactly_where_the_margin_is_less_than_the_ball() -> None:
    """The refinement lowers E(x, 1) by a constant, which the bias takes off again."""
    config = SILENT.model_copy(update={"budget": 1.0})
    plain = EnergyClassifier(LinearEnergy(10.0), 3)
    shift = float((plain(refine(plain, images(1), config)) - plain(images(1)))[0, 1])
    defence = energy_defence(EnergyClassifier(LinearEnergy(10.0), 3, torch.tensor([0.0, -shift])), config)
    radius = 2 * 8 / 255
    taken, labels = on_levels([0.3 * radius, 0.85 * radius, 1.15 * radius, 2.0 * radius, -radius])
    plan = Plan(
        name="small", images=5, attacks=(transfer_from("bare", 20), pgd("bpda-pgd", 20, 1, BPDA)), check_images=2
    )
    found = Evaluator(defence, Linf(8 / 255), plan).run(taken, labels)
    assert found.clean.mean_logit.correct == 4
    assert found.worst_case.correct == 2


def test_the_bare_energy_is_attacked_without_the_refinement() -> None:
    defence = energy_defence(EnergyClassifier(QuadraticEnergies(), 3), SILENT)
    x = (images(2) + 1) / 2
    streams = [Stream(("a", row)) for row in range(2)]
    bare = defence.bare().replicate_logits(x, streams, 0, 1)[0]
    expected = torch.stack([-(2 * x - 1 - c).flatten(1).square().sum(1) / 2 for c in CENTRES], 1)
    assert torch.allclose(bare, expected, atol=1e-5)
    assert not torch.allclose(defence.replicate_logits(x, streams, 0, 1)[0], expected, atol=1e-2)


def test_the_bias_is_found_again_and_energies_that_say_nothing_are_refused() -> None:
    """Labels drawn from softmax(bias - E)."""
    generator = torch.Generator().manual_seed(0)
    energies, bias = 1e-3 * torch.randn(20_000, 3, generator=generator), 1e-3 * torch.tensor([1.0, 0.5, -1.5])
    labels = torch.multinomial((2e3 * (bias - energies)).softmax(1), 1, generator=generator)[:, 0]
    assert torch.allclose(fit_bias(energies, labels), bias, atol=1e-4)
    with pytest.raises(NetworkError, match="low energies do not mean likely classes"):
        fit_bias(-energies, labels)
    with pytest.raises(NetworkError, match="at least 2 classes, got 0"):
        EnergyClassifier(nn.Identity(), 3)
