"""What a step costs at each batch size on this device, measured at start, and what follows for the engine."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from models.langevin import langevin_transition
from models.precision import Precision

BATCH_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
REPEATS = 3
GOOD_ENOUGH = 0.95
"""The largest bucket is the smallest batch with this share of the best throughput; in a larger one chains only wait."""
LONGEST_STEP = 0.5
"""Seconds; no larger batch is tried once a step takes that long."""
PATIENCE = 3
MAX_QUANTUM = 32


@dataclass(frozen=True)
class Profile:
    """Seconds a step by batch size, and the steps that chains stay together in each, both by bucket, ascending."""

    seconds: dict[int, float]
    quantum: dict[int, int]
    precision: Precision

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes, ascending."""
        return tuple(self.seconds)

    @property
    def rate(self) -> float:
        """Image-steps per second with every slot taken."""
        largest = self.buckets[-1]
        return largest / self.seconds[largest]

    def bucket(self, chains: int) -> int:
        """The smallest batch that holds that many chains."""
        return next(size for size in self.seconds if size >= chains)


def measure(
    energy: nn.Module,
    shape: tuple[int, int, int],
    precision: Precision,
    device: torch.device,
    quantum_seconds: float,
    slots: int | None = None,
    sign_of_life: Callable[[], None] = lambda: None,
) -> Profile:
    """Time a few steps at each batch size, and keep the sizes up to the one worth filling.

    Args:
        shape: (C, H, W) of a chain.
        quantum_seconds: how long chains may run between two points where they can join and leave.
        slots: the largest batch, instead of the one that the measurement favours.
    """
    seconds: dict[int, float] = {}
    for size in BATCH_SIZES if slots is None else (*(size for size in BATCH_SIZES if size < slots), slots):
        seconds[size] = _seconds_a_step(energy, size, shape, precision, device)
        sign_of_life()
        if slots is None and (seconds[size] > LONGEST_STEP or _levelled_off(seconds)):
            break
    largest = slots or next(size for size, rate in _rates(seconds).items() if rate >= GOOD_ENOUGH * _best(seconds))
    kept = {size: each for size, each in seconds.items() if size <= largest}
    quantum = {size: min(MAX_QUANTUM, max(1, round(quantum_seconds / each))) for size, each in kept.items()}
    return Profile(kept, quantum, precision)


def _rates(seconds: Mapping[int, float]) -> dict[int, float]:
    return {size: size / each for size, each in seconds.items()}


def _best(seconds: Mapping[int, float]) -> float:
    return max(_rates(seconds).values())


def _levelled_off(seconds: Mapping[int, float]) -> bool:
    """Whether the last PATIENCE batch sizes brought nothing."""
    rates = list(_rates(seconds).values())
    return len(rates) > PATIENCE and max(rates[-PATIENCE:]) <= max(rates[:-PATIENCE])


def _seconds_a_step(
    energy: nn.Module, size: int, shape: tuple[int, int, int], precision: Precision, device: torch.device
) -> float:
    x = torch.zeros(size, *shape, device=device).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(REPEATS + 1):  # the first one allocates and chooses kernels
        started = time.perf_counter()
        x, _ = langevin_transition(energy, x, 0.0, 0.0, precision, torch.zeros_like)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
