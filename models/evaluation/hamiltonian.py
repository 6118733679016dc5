"""Hamiltonian Monte Carlo on the path between a base and a target (Duane et al. 1987; Neal 2011).

One leapfrog step with a fresh velocity is the Metropolis-adjusted Langevin algorithm.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.evaluation.annealing_bases import Base
from models.gradients import Gradient


class Place(NamedTuple):
    """States [B, ...] with the target's and the base's potential [B] (float64, in nats) and gradient."""

    x: Tensor
    u: Tensor
    grad: Tensor
    base_u: Tensor
    base_grad: Tensor


@dataclass(frozen=True)
class Path:
    """The densities exp(-(1 - b) U_base - b U), b from 0 to 1; U is energy / temperature."""

    gradient: Gradient
    temperature: float
    base: Base

    def at(self, x: Tensor) -> Place:
        """Both potentials at x."""
        u, grad = self.gradient(x)
        return Place(x, u.double() / self.temperature, grad / self.temperature, *self.base.potential(x))


def hamiltonian_step(
    path: Path, b: float, place: Place, step_size: float, leapfrog_steps: int, generator: torch.Generator
) -> tuple[Place, Tensor]:
    """One transition that leaves the density at b as it is; returns the acceptance probabilities [B] beside it.

    Each state's own step is between half of `step_size` and all of it: trajectories of one length can be half a period
    of the target, and then come back to where the potential was (Neal 2011, section 3.2).
    """
    jitter = torch.rand(len(place.x), generator=generator, device=place.x.device, dtype=place.x.dtype)
    step = (step_size * (0.5 + 0.5 * jitter)).view(-1, *(1,) * (place.x.dim() - 1))
    velocity = torch.randn(place.x.shape, generator=generator, device=place.x.device, dtype=place.x.dtype)
    before = _hamiltonian(place, b, velocity)
    moved = place
    for _ in range(leapfrog_steps):
        velocity = velocity - 0.5 * step * _slope(moved, b)
        x, velocity = path.base.move(moved.x, velocity, step)
        moved = path.at(x)
        velocity = velocity - 0.5 * step * _slope(moved, b)
    # A trajectory that left for infinity has no finite energy: it is refused.
    change = (before - _hamiltonian(moved, b, velocity)).nan_to_num(nan=-torch.inf)
    probability = change.clamp(max=0.0).exp()
    uniform = torch.rand(len(probability), generator=generator, device=probability.device, dtype=torch.float64)
    accepted = uniform < probability
    return Place(*(_where(accepted, new, old) for new, old in zip(moved, place, strict=True))), probability


def _slope(place: Place, b: float) -> Tensor:
    return (1.0 - b) * place.base_grad + b * place.grad


def _hamiltonian(place: Place, b: float, velocity: Tensor) -> Tensor:
    kinetic = 0.5 * velocity.flatten(1).double().square().sum(1)
    return (1.0 - b) * place.base_u + b * place.u + kinetic


def _where(accepted: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(accepted.view(-1, *(1,) * (new.dim() - 1)), new, old)
