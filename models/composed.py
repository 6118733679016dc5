"""Energies made of others, with gradients made of theirs: networks in a sum are still frozen one by one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from models.gradients import Energy, FrozenAutograd, Gradient, energy_gradient, gradient_of, rows_of
from models.precision import Precision


@dataclass(frozen=True)
class Conditional:
    """U(x_i | y_i) of a network called with (x, labels): each chain has a label of its own.

    Args:
        labels: [B, ...], on the device of x; a whole number each, or whatever the network reads.
    """

    network: Callable[[Tensor, Tensor], Tensor]
    labels: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.network(x, self.labels)

    def rows(self, index: slice | Tensor) -> "Conditional":
        """See `PerChain`."""
        return replace(self, labels=self.labels[index])

    def frozen(self, precision: Precision) -> Gradient:
        """The gradient by x, of the network's weights as they are now."""
        if isinstance(self.network, nn.Module):
            return _ConditionalGradient(FrozenAutograd(self.network, precision), self.labels)
        return _ConditionalGradient(partial(_gradient_by_autograd, self.network, precision), self.labels)


def _gradient_by_autograd(
    network: Callable[[Tensor, Tensor], Tensor], precision: Precision, x: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    return energy_gradient(Conditional(network, labels), x, precision)


@dataclass(frozen=True)
class _ConditionalGradient:
    of_network: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    labels: Tensor

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.of_network(x, self.labels)

    def rows(self, index: slice | Tensor) -> "_ConditionalGradient":
        return replace(self, labels=self.labels[index])


@dataclass(frozen=True)
class EnergySum:
    """U(x) = sum_i f_i(x) / T_i + |x|^2 / (2 tau^2); see `models.langevin.add_energies`."""

    terms: tuple[tuple[Energy, float], ...]
    tau: float | None = None

    def __call__(self, x: Tensor) -> Tensor:
        energy = x.new_zeros(len(x))
        for f, temperature in self.terms:
            energy = energy + f(x).float() / temperature
        if self.tau is not None:
            energy = energy + x.flatten(1).square().sum(1) / (2.0 * self.tau**2)
        return energy

    def rows(self, index: slice | Tensor) -> "EnergySum":
        """See `PerChain`."""
        return replace(self, terms=tuple((rows_of(f, index), temperature) for f, temperature in self.terms))

    def frozen(self, precision: Precision) -> Gradient:
        """The sum of the terms' own gradients; the Gaussian one stays in the dtype of x."""
        return _SumGradient(tuple((gradient_of(f, precision), temperature) for f, temperature in self.terms), self.tau)


@dataclass(frozen=True)
class _SumGradient:
    parts: tuple[tuple[Gradient, float], ...]
    tau: float | None

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach()
        energy = torch.zeros(len(x), device=x.device)
        total = torch.zeros_like(x)
        for part, temperature in self.parts:
            u, grad = part(x)
            energy, total = energy + u / temperature, total + grad / temperature
        if self.tau is not None:
            energy = energy + x.flatten(1).square().sum(1).float() / (2.0 * self.tau**2)
            total = total + x / self.tau**2
        return energy, total

    def rows(self, index: slice | Tensor) -> "_SumGradient":
        return replace(self, parts=tuple((rows_of(part, index), temperature) for part, temperature in self.parts))


@dataclass(frozen=True)
class ClippedEnergy:
    """An energy whose gradient, as chains see it, is shortened to `longest` (L2, each chain's own)."""

    energy: Energy
    longest: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.energy(x)

    def rows(self, index: slice | Tensor) -> "ClippedEnergy":
        """See `PerChain`."""
        return replace(self, energy=rows_of(self.energy, index))

    def frozen(self, precision: Precision) -> Gradient:
        """The energy's gradient, scaled down where it is longer."""
        return _ClippedGradient(gradient_of(self.energy, precision), self.longest)


@dataclass(frozen=True)
class _ClippedGradient:
    inner: Gradient
    longest: float

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u, grad = self.inner(x)
        norm = torch.linalg.vector_norm(grad.flatten(1), dim=1).clamp(min=self.longest)
        return u, grad * (self.longest / norm).view(-1, *(1,) * (grad.dim() - 1)).to(grad.dtype)

    def rows(self, index: slice | Tensor) -> "_ClippedGradient":
        return replace(self, inner=rows_of(self.inner, index))
