"""The noise of Langevin steps, drawn for a whole batch at a time or for parts of it that run apart."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Noise = Callable[[Tensor], Tensor]
"""Standard normal noise of the argument's shape, dtype and device; each call is the next step's."""


@runtime_checkable
class DivisibleNoise(Protocol):
    """Noise whose chains do not depend on each other."""

    def __call__(self, x: Tensor) -> Tensor:
        """See `Noise`."""
        ...

    def divide(self, parts: Sequence[slice]) -> Sequence[Noise]:
        """The noise of each part of a batch [B, ...], in order; the parts cover range(B)."""
        ...


class SeededNoise:
    """Noise drawn from `generator`, which must live on the chains' device; None is PyTorch's own."""

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self._generator = generator

    def __call__(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=self._generator)

    def divide(self, parts: Sequence[slice]) -> Sequence[Noise]:
        """A generator a chain, seeded by this one: how the batch is cut changes no chain."""
        seeds = torch.randint(2**63 - 1, (parts[-1].stop,), generator=self._generator).tolist()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return [_Chainwise(generators[part]) for part in parts]


UNSEEDED = SeededNoise()
"""Noise from PyTorch's own generator, which `torch.manual_seed` seeds."""


class _Chainwise:
    """One generator a chain."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._generators = generators

    def __call__(self, x: Tensor) -> Tensor:
        noise = torch.empty(x.shape, dtype=x.dtype)
        for row, generator in zip(noise, self._generators, strict=True):
            row.normal_(generator=generator)
        return noise
