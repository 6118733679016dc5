"""Composed energies of Gaussians, whose densities are known in closed form."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from models.composed import Conditional
from models.gradients import Energy, energy_gradient, gradient_of, rows_of
from models.langevin import LangevinConfig, run_langevin
from models.tasks.composition import EnergyMixture, conjunction, negation

TEMPERATURE = 0.5
CONFIG = LangevinConfig(num_steps=150, step_size=0.3, temperature=TEMPERATURE)
CENTRES = torch.tensor([-3.0, 0.0, 4.0])


def gaussian(mean: float, variance: float) -> Callable[[Tensor], Tensor]:
    """exp(-U / T) is N(mean, variance) in each element."""
    return lambda x: TEMPERATURE * (x - mean).flatten(1).square().sum(1) / (2 * variance)


def labelled(x: Tensor, labels: Tensor) -> Tensor:
    """N(c[y], 1) in each element."""
    return TEMPERATURE * (x - CENTRES[labels].view(-1, 1, 1, 1)).flatten(1).square().sum(1) / 2


def sample(energy: Energy, chains: int, steps: int = CONFIG.num_steps, shape: tuple[int, ...] = (1, 4, 4)) -> Tensor:
    config = CONFIG.model_copy(update={"num_steps": steps})
    generator = torch.Generator().manual_seed(0)  # of all chains together: quicker for many small ones
    noise = partial(torch.randn, chains, *shape, generator=generator)
    return run_langevin(energy, torch.zeros(chains, *shape), config, randn_like=lambda _: noise())[0]


def discrete_variance(variance: float) -> float:
    """Of the chain of finite steps whose target has `variance`: eps^2 / (1 - (1 - eps^2 / (2 variance))^2)."""
    return CONFIG.step_size**2 / (1 - (1 - CONFIG.step_size**2 / (2 * variance)) ** 2)


@pytest.mark.parametrize(
    ("energy", "mean", "variance"),
    [
        # Precisions add: 1 / 1 + 1 / 0.5, and the mean is weighed by them.
        (conjunction([gaussian(-1.0, 1.0), gaussian(2.0, 0.5)]), (-1.0 + 2.0 * 2) / 3, 1 / 3),
        # 1 / 0.5 - 0.5 / 1 is left of the first one's precision; it is pushed away from where the other is likely.
        (negation(gaussian(0.0, 0.5), gaussian(1.5, 1.0), 0.5), -0.5 * 1.5 / 1.5, 1 / 1.5),
    ],
)
def test_products_and_negations_of_gaussians_are_gaussians(energy: Energy, mean: float, variance: float) -> None:
    ends = sample(energy, 600)
    expected = discrete_variance(variance)
    error = (expected / ends.numel()) ** 0.5
    assert float(ends.mean()) == pytest.approx(mean, abs=4 * error)
    assert float(ends.var()) == pytest.approx(expected, rel=4 * (2 / ends.numel()) ** 0.5)


def test_a_mixture_has_the_shares_of_its_weights() -> None:
    """Parts of equal normalisers, near enough to each other for chains to cross: mean and variance of the mixture."""
    weights, centres, variance = (0.8, 0.2), (-1.0, 1.0), 0.6
    mixture = EnergyMixture(tuple(gaussian(centre, variance) for centre in centres), weights, TEMPERATURE)
    ends = sample(mixture, 6000, steps=300, shape=(1, 1, 1))
    mean = sum(weight * centre for weight, centre in zip(weights, centres, strict=True))
    # The discretised chain is a few hundredths wider than the mixture: 1 - mean^2 between parts, the variance within.
    spread = 1 - mean**2 + variance
    assert float(ends.mean()) == pytest.approx(mean, abs=4 * (spread / len(ends)) ** 0.5 + 0.01)
    assert float(ends.var()) == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize("index", [slice(3, 9), torch.tensor([8, 2, 2, 11])])
def test_a_mixtures_frozen_gradient_is_autograds_for_the_rows_of_each_chain(index: slice | Tensor) -> None:
    labels = torch.arange(12) % 3
    mixture = EnergyMixture((Conditional(labelled, labels), gaussian(1.0, 2.0)), (0.3, 2.0), TEMPERATURE)
    x = torch.randn(12, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    energy, grad = energy_gradient(mixture, x, "float32")
    frozen = gradient_of(mixture, "float32")
    for part in (rows_of(frozen, index), gradient_of(rows_of(mixture, index), "float32")):
        found, found_grad = part(x[index])
        assert torch.allclose(found, energy[index], atol=1e-6)
        assert torch.allclose(found_grad, grad[index], atol=1e-6)


def test_concepts_meet_half_way_between_the_labels_of_each_chain() -> None:
    """N(c[y], 1) times N(c[z], 1) is N((c[y] + c[z]) / 2, 1/2), for every pair of labels in one batch."""
    first, second = torch.cartesian_prod(torch.arange(3), torch.arange(3)).repeat(8, 1).unbind(1)
    ends = sample(conjunction([Conditional(labelled, first), Conditional(labelled, second)]), len(first), 60, (1, 8, 8))
    error = (discrete_variance(0.5) / 64) ** 0.5
    assert float((ends.mean((1, 2, 3)) - (CENTRES[first] + CENTRES[second]) / 2).abs().max()) < 5 * error


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0)])
def test_a_mixture_without_a_weight_for_each_part_is_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"weight above 0 for each of 2 energies, got \(1\.0"):
        EnergyMixture((gaussian(0, 1), gaussian(1, 1)), weights, 1.0)


def test_a_negation_of_no_strength_is_refused() -> None:
    with pytest.raises(ValueError, match="strength must be above 0, got -1"):
        negation(gaussian(0, 1), gaussian(1, 1), -1.0)
