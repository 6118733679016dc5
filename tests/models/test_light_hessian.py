"""Hessian-vector products written out, against autograd's."""

import pytest
import torch
from torch import Tensor

from models.frozen.light_hessian import FrozenLightHessian
from models.networks.energy import LightEnergy, SmoothLeakyReLU
from models.precision import autocast

ARGUMENTS = {"channels": 3, "image_size": 32, "width": 8, "activation": "smooth_leaky"}


def by_autograd(energy: LightEnergy, x: Tensor, v: Tensor, precision: str = "float32") -> Tensor:
    x = x.clone().requires_grad_(True)
    with autocast(x.device, precision):
        u = energy(x)
    (grad,) = torch.autograd.grad(u.float().sum(), x, create_graph=True)
    (product,) = torch.autograd.grad(grad, x, v)
    return product


@pytest.fixture
def energy() -> LightEnergy:
    torch.manual_seed(0)
    return LightEnergy(**ARGUMENTS, slope=0.05, smoothing=0.02).eval()


def pair(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 32, 32, generator=generator) * 2 - 1, torch.randn(count, 3, 32, 32, generator=generator)


def relative_error(found: Tensor, exact: Tensor) -> Tensor:
    return (found - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)


@pytest.mark.parametrize("count", [1, 5, 33])
def test_in_float32_it_is_autograd_to_rounding(energy: LightEnergy, count: int) -> None:
    x, v = pair(count)
    found = FrozenLightHessian(energy, torch.float32)(x, v)
    assert float(relative_error(found, by_autograd(energy, x, v)).max()) < 1e-5
    assert not found.requires_grad


def test_in_bfloat16_it_is_as_close_as_autocast(energy: LightEnergy) -> None:
    x, v = pair(32)
    exact = by_autograd(energy, x, v)
    found = relative_error(FrozenLightHessian(energy, torch.bfloat16)(x, v), exact)
    autocast_error = relative_error(by_autograd(energy, x, v, "bfloat16"), exact)
    assert 1e-4 < float(found.median()) < 1.2 * float(autocast_error.median())


def test_it_is_linear_in_v_symmetric_and_changes_nothing(energy: LightEnergy) -> None:
    """<w, H v> = <v, H w>, as of any Hessian."""
    hessian, (x, v) = FrozenLightHessian(energy, torch.float32), pair(4)
    w, kept = torch.randn_like(v), (x.clone(), v.clone())
    product = hessian(x, v)
    torch.testing.assert_close((w * product).sum(), (v * hessian(x, w)).sum(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(hessian(x, 3 * v), 3 * product, rtol=1e-4, atol=1e-7)
    assert torch.equal(x, kept[0])
    assert torch.equal(v, kept[1])


def test_derivatives_of_a_rounded_corner_are_autograd_s() -> None:
    activation, x = SmoothLeakyReLU(0.1, 0.02), torch.linspace(-0.3, 0.3, 101, dtype=torch.float64, requires_grad=True)
    value = activation(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    for found, exact in zip(activation.derivatives(x.detach()), (value, slope, curvature), strict=True):
        torch.testing.assert_close(found, exact.detach())
