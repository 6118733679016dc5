"""The energy and its input gradient, as chains need them: by autograd, or faster for weights that stand still.

A chain asks for nothing but dU/dx, thousands of times with the same weights. For piecewise linear networks that is
written out by hand (`models/frozen`): forward, then back through each convolution, with the mask of each activation
taken from the sign of its result. Other networks go through autograd, on weights that were cast once.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from models.frozen.light import FrozenLight
from models.frozen.sngan import FrozenSNGAN
from models.networks.energy import LightEnergy, SNGANEnergy
from models.networks.plain import is_plain, plain_copy
from models.precision import DTYPES, Precision, autocast

Energy = Callable[[Tensor], Tensor]
"""[B, ...] -> [B]: one scalar a chain."""
Gradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""x [B, ...] -> (U(x) [B] in float32, dU/dx in x's dtype), both without a graph."""


P = TypeVar("P", bound=Callable[[Tensor], object])


@runtime_checkable
class PerChain(Protocol):
    """An energy, or a gradient, that holds something for each chain, such as its label."""

    def rows(self, index: slice | Tensor) -> "PerChain":
        """The same for the chains that `index` (a slice, or int64 [N]) picks, in its order."""
        ...


def rows_of(part: P, index: slice | Tensor) -> P:
    """An energy or a gradient for some of its chains: itself, unless it holds something for each of them."""
    return part.rows(index) if isinstance(part, PerChain) else part


@runtime_checkable
class ComposedEnergy(Protocol):
    """An energy made of others, which knows how its gradient follows from theirs."""

    def __call__(self, x: Tensor) -> Tensor:
        """See `Energy`."""
        ...

    def frozen(self, precision: Precision) -> Gradient:
        """The gradient for a run of many steps."""
        ...


def energy_gradient(energy: Energy, x: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """U(x) [B] in float32 and dU/dx [B, ...] in x's dtype, both without a graph."""
    with torch.enable_grad():  # undoes a caller's no_grad; nothing undoes inference_mode
        x = x.detach().requires_grad_(True)
        with autocast(x.device, precision):
            u = energy(x)
        (grad,) = torch.autograd.grad(u.float().sum(), x)
    return u.detach().float(), grad


def gradient_of(energy: Energy, precision: Precision) -> Gradient:
    """What a run of many steps asks: networks are frozen first, any other function goes through autograd."""
    if isinstance(energy, nn.Module):
        return freeze(energy, precision)
    if isinstance(energy, ComposedEnergy):
        return energy.frozen(precision)
    return partial(energy_gradient, energy, precision=precision)


def freeze(energy: nn.Module, precision: Precision) -> Gradient:
    """The gradient of the energy as it is now; whether later changes of its weights are seen is left open."""
    if isinstance(energy, LightEnergy) and isinstance(energy.layers[1], nn.LeakyReLU):
        return FrozenLight(energy, DTYPES[precision])
    if isinstance(energy, SNGANEnergy) and isinstance(energy.activation, nn.LeakyReLU):
        return FrozenSNGAN(energy, energy.activation.negative_slope, DTYPES[precision])
    return FrozenAutograd(energy, precision)


class FrozenAutograd:
    """Any network, with its weights computed and cast once; it may read labels beside x."""

    def __init__(self, energy: nn.Module, precision: Precision) -> None:
        self._dtype = DTYPES[precision]
        self._energy = energy
        foreign = any(each.dtype != self._dtype or each.requires_grad for each in energy.parameters())
        if foreign or not is_plain(energy):
            self._energy = plain_copy(energy).requires_grad_(False).to(self._dtype)

    def __call__(self, x: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():  # undoes a caller's no_grad; nothing undoes inference_mode
            inputs = x.detach().to(self._dtype).requires_grad_(True)
            u = self._energy(inputs, *labels).float()
            (grad,) = torch.autograd.grad(u.sum(), inputs)
        return u.detach(), grad.to(x.dtype)
