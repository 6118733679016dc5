"""Concepts put together by arithmetic on energies: one network a concept, trained alone, combined when it samples.

Energies of one temperature T are densities exp(-U / T): their sum is a product of experts (Hinton 2002), so that IGEBM
(arXiv 1903.08689, section 4.3) composes concepts it never saw together; mixtures and negations follow Du, Li and
Mordatch (arXiv 2004.06030). What is composed is an energy again: `run_langevin` moves all its terms in one joint step,
on frozen weights, and each chain keeps its own labels (`models.composed.Conditional`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.composed import EnergySum
from models.gradients import Energy, Gradient, gradient_of, rows_of
from models.langevin import add_energies
from models.precision import Precision


def conjunction(energies: Sequence[Energy]) -> EnergySum:
    """U = sum_i U_i: what all of them find likely."""
    return add_energies([(energy, 1.0) for energy in energies])


def negation(energy: Energy, other: Energy, strength: float) -> EnergySum:
    """U = U_1 - strength U_2: what the first finds likely and the other does not.

    It is a density only where U_1 grows faster than strength U_2; chains elsewhere run away.
    """
    if strength <= 0:
        raise ValueError(f"strength must be above 0, got {strength}")
    return add_energies([(energy, 1.0), (other, -1.0 / strength)])


@dataclass(frozen=True)
class EnergyMixture:
    """U(x) = -T log sum_i w_i exp(-U_i(x) / T): what any of them finds likely, as a density sum_i w_i exp(-U_i / T).

    A part's share of that density is w_i times its normaliser, which a trained energy does not know.

    Args:
        temperature: T, that of the sampler.
    """

    energies: tuple[Energy, ...]
    weights: tuple[float, ...]
    temperature: float

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.energies) or not all(weight > 0 for weight in self.weights):
            raise ValueError(f"expected a weight above 0 for each of {len(self.energies)} energies, got {self.weights}")

    def __call__(self, x: Tensor) -> Tensor:
        parts = torch.stack([energy(x).float() for energy in self.energies])
        return -self.temperature * _joint_logits(parts, self.weights, self.temperature).logsumexp(0)

    def rows(self, index: slice | Tensor) -> "EnergyMixture":
        """See `PerChain`."""
        return replace(self, energies=tuple(rows_of(energy, index) for energy in self.energies))

    def frozen(self, precision: Precision) -> Gradient:
        """The mean of the parts' gradients, each weighed by how likely it is that x came from that part."""
        parts = tuple(gradient_of(energy, precision) for energy in self.energies)
        return _MixtureGradient(parts, self.weights, self.temperature)


@dataclass(frozen=True)
class _MixtureGradient:
    parts: tuple[Gradient, ...]
    weights: tuple[float, ...]
    temperature: float

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        energies, gradients = zip(*(part(x) for part in self.parts), strict=True)
        logits = _joint_logits(torch.stack(energies), self.weights, self.temperature)
        shares = logits.softmax(0).to(x.dtype).view(*logits.shape, *(1,) * (x.dim() - 1))
        return -self.temperature * logits.logsumexp(0), (shares * torch.stack(gradients)).sum(0)

    def rows(self, index: slice | Tensor) -> "_MixtureGradient":
        return replace(self, parts=tuple(rows_of(part, index) for part in self.parts))


def _joint_logits(energies: Tensor, weights: Sequence[float], temperature: float) -> Tensor:
    """log w_i - U_i / T, [parts, B]."""
    return energies.new_tensor([math.log(weight) for weight in weights])[:, None] - energies / temperature
