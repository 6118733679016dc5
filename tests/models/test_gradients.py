"""Frozen gradients against autograd: the same function, computed another way."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.frozen.light import FrozenLight
from models.frozen.sngan import FrozenSNGAN
from models.gradients import FrozenAutograd, energy_gradient, freeze, gradient_of
from models.networks.energy import LightEnergy, SNGANEnergy, SNGANEnergy32, SNGANEnergy64, SNGANEnergy128

LIGHT = {"channels": 3, "image_size": 32, "width": 8}


@pytest.fixture
def light() -> LightEnergy:
    torch.manual_seed(0)
    return LightEnergy(**LIGHT).eval()


def images(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def relative_errors(found: Tensor, exact: Tensor) -> Tensor:
    return (found - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)


def relative_error(found: Tensor, exact: Tensor) -> float:
    return float(relative_errors(found, exact).max())


@pytest.mark.parametrize("count", [1, 2, 8, 33])
@pytest.mark.parametrize("channels_last", [False, True])
def test_in_float32_the_frozen_convolutions_are_autograd_to_rounding(
    light: LightEnergy, count: int, channels_last: bool
) -> None:
    x = images(count)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    frozen = freeze(light, "float32")
    assert isinstance(frozen, FrozenLight)
    (u, grad), (exact_u, exact) = frozen(x), energy_gradient(light, x, "float32")
    torch.testing.assert_close(u, exact_u, rtol=1e-5, atol=1e-6)
    assert relative_error(grad, exact) < 1e-5
    assert not grad.requires_grad


def test_in_bfloat16_they_are_as_close_to_float32_as_autocast_is(light: LightEnergy) -> None:
    x = images(64)
    exact = energy_gradient(light, x, "float32")[1]
    autocast = relative_error(energy_gradient(light, x, "bfloat16")[1], exact)
    frozen = relative_error(freeze(light, "bfloat16")(x)[1], exact)
    assert 1e-4 < frozen < 1.5 * autocast


def test_a_closed_form() -> None:
    """Convolutions of ones on an image of ones: each stage of a 8x8 image counts its window, and every slope is 1."""
    energy = LightEnergy(channels=1, image_size=8, width=1)
    for each in energy.parameters():
        each.data.fill_(1.0 if each.dim() > 1 else 0.0)
    x = torch.ones(1, 1, 8, 8)
    u, grad = freeze(energy, "float32")(x)
    exact_u, exact = energy_gradient(energy, x, "float32")
    assert u.item() == exact_u.item()
    assert torch.equal(grad, exact)
    assert float((grad * x).sum()) == u.item()  # U is linear here: U(x) = <grad U, x>


def test_a_frozen_copy_does_not_see_later_weights(light: LightEnergy) -> None:
    x, frozen = images(2), freeze(light, "bfloat16")
    before = frozen(x)[1]
    with torch.no_grad():
        light.layers[0].weight.mul_(2.0)
    assert torch.equal(frozen(x)[1], before)


@pytest.mark.parametrize(
    ("network", "arguments", "side"),
    [
        (SNGANEnergy32, {"width": 8}, 32),
        (SNGANEnergy32, {"channels": 1, "width": 8, "slope": 0.1}, 24),
        (SNGANEnergy64, {"width": 32}, 64),
        (SNGANEnergy128, {"width": 32}, 128),
    ],
)
def test_residual_networks_with_pooling_folded_in_are_autograd_to_rounding(
    network: type[SNGANEnergy], arguments: dict[str, Any], side: int
) -> None:
    """In bfloat16 the median image is judged: rounding flips activations near 0, of which one image may have many."""
    torch.manual_seed(0)
    energy = network(**arguments)
    shape = (16, arguments.get("channels", 3), side, side)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(2)) * 2 - 1
    frozen = freeze(energy, "float32")
    assert isinstance(frozen, FrozenSNGAN)
    (u, grad), (exact_u, exact) = frozen(x), energy_gradient(energy, x, "float32")
    torch.testing.assert_close(u, exact_u, rtol=1e-5, atol=1e-6)
    assert float(relative_errors(grad, exact).median()) < 1e-5
    assert relative_error(grad, exact) < 0.05
    autocast = relative_errors(energy_gradient(energy, x, "bfloat16")[1], exact).median()
    assert 1e-4 < relative_errors(freeze(energy, "bfloat16")(x)[1], exact).median() < 1.5 * autocast


@pytest.mark.parametrize("energy", [LightEnergy(activation="silu", **LIGHT), SNGANEnergy32(width=8, activation="silu")])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_other_networks_go_through_autograd(energy: nn.Module, precision: str) -> None:
    x, frozen = images(4), freeze(energy, precision)
    assert isinstance(frozen, FrozenAutograd)
    (u, grad), (exact_u, exact) = frozen(x), energy_gradient(energy, x, "float32")
    assert relative_error(grad, exact) < (1e-6 if precision == "float32" else 0.1)
    torch.testing.assert_close(u, exact_u, rtol=0.05, atol=0.05 if precision == "bfloat16" else 1e-6)
    assert u.dtype == grad.dtype == torch.float32
    assert all(each.grad is None for each in energy.parameters())


def test_a_plain_function_goes_through_autograd_under_no_grad() -> None:
    with torch.no_grad():
        u, grad = gradient_of(lambda x: x.square().flatten(1).sum(1), "float32")(torch.full((1, 1, 2, 2), 3.0))
    assert u.item() == 36.0
    assert torch.equal(grad, torch.full((1, 1, 2, 2), 6.0))
