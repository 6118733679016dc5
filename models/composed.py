"""Energies made of others, with gradients made of theirs: networks in a sum are still frozen one by one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.gradients import Energy, Gradient, gradient_of
from models.precision import Precision


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

    def frozen(self, precision: Precision) -> Gradient:
        """The sum of the terms' own gradients; the Gaussian one stays in the dtype of x."""
        parts = [(gradient_of(f, precision), temperature) for f, temperature in self.terms]

        def gradient(x: Tensor) -> tuple[Tensor, Tensor]:
            x = x.detach()
            energy = torch.zeros(len(x), device=x.device)
            total = torch.zeros_like(x)
            for part, temperature in parts:
                u, grad = part(x)
                energy, total = energy + u / temperature, total + grad / temperature
            if self.tau is not None:
                energy = energy + x.flatten(1).square().sum(1).float() / (2.0 * self.tau**2)
                total = total + x / self.tau**2
            return energy, total

        return gradient


@dataclass(frozen=True)
class ClippedEnergy:
    """An energy whose gradient, as chains see it, is shortened to `longest` (L2, each chain's own)."""

    energy: Energy
    longest: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.energy(x)

    def frozen(self, precision: Precision) -> Gradient:
        """The energy's gradient, scaled down where it is longer."""
        inner = gradient_of(self.energy, precision)

        def gradient(x: Tensor) -> tuple[Tensor, Tensor]:
            u, grad = inner(x)
            norm = torch.linalg.vector_norm(grad.flatten(1), dim=1).clamp(min=self.longest)
            return u, grad * (self.longest / norm).view(-1, *(1,) * (grad.dim() - 1)).to(grad.dtype)

        return gradient
