"""Sums of energies and shortened gradients, as chains follow them."""

import pytest
import torch
from torch import Tensor

from models.bundle import Bundle
from models.composed import ClippedEnergy
from models.data import ImageDataset
from models.gradients import energy_gradient, gradient_of
from models.langevin import LangevinConfig, add_energies, run_langevin
from models.pixels import from_uint8


def test_a_frozen_sum_has_the_gradient_that_autograd_finds(digits_bundle: Bundle, digits_test: ImageDataset) -> None:
    network = digits_bundle.defence.energy

    def linear(x: Tensor) -> Tensor:
        return 3 * x.flatten(1).sum(1)

    total = add_energies([(network, 1e-3), (linear, 0.1)], tau=0.25)
    x = from_uint8(digits_test.images[:8])
    energy, grad = gradient_of(total, "float32")(x)
    expected_energy, expected = energy_gradient(total, x, "float32")
    assert torch.allclose(energy, expected_energy, rtol=1e-4)
    assert torch.allclose(grad, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    # Low precision is the network's alone.
    _, low = gradient_of(total, "bfloat16")(x)
    _, networks_own = gradient_of(network, "bfloat16")(x)
    assert torch.allclose(low, networks_own / 1e-3 + 30 + x / 0.25**2, rtol=1e-4)
    assert not torch.allclose(low, expected, rtol=1e-4)


@pytest.mark.parametrize("longest", [0.5, 100.0])
def test_a_chain_follows_a_gradient_of_at_most_the_given_length(longest: float) -> None:
    def quadratic(x: Tensor) -> Tensor:
        return x.flatten(1).square().sum(1) / 2

    start = torch.tensor([[3.0, 4.0], [0.03, 0.04]])
    config = LangevinConfig(num_steps=1, step_size=0.2, temperature=0.5)
    moved, info = run_langevin(ClippedEnergy(quadratic, longest), start, config, randn_like=torch.zeros_like)
    lengths = torch.tensor([min(5.0, longest), 0.05])
    assert torch.allclose(info.drift_norm, 0.04 * lengths)
    assert torch.allclose(moved, start * (1 - 0.04 * lengths / start.norm(dim=1))[:, None])
