"""What a step costs at each batch size on this device, measured at start, and what follows for the engine."""

import time
from collections.abc import Callable, Mapping

import torch

from models.chain_threads import ChainThreads
from models.gradients import Gradient
from models.purifier import PurifiedClassifier
from service.slots import Profile, Slots

BATCH_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
REPEATS = 3
CLASSIFIED = 5
GOOD_ENOUGH = 0.95
"""The largest bucket is the smallest batch with this share of the best throughput; in a larger one chains only wait."""
LONGEST_STEP = 0.5
"""Seconds; no larger batch is tried once a step takes that long."""
PATIENCE = 3
LEAST = 16
"""The largest bucket holds at least so many, however noisy the measurement."""
MAX_QUANTUM = 32


def measure(
    gradient: Gradient,
    shape: tuple[int, int, int],
    device: torch.device,
    threads: ChainThreads,
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
        trial = Slots(gradient, shape, Profile({size: 0.0}, {size: REPEATS}), device, threads)
        seconds[size] = _seconds_a_step(trial, size, device)
        sign_of_life()
        if slots is None and ((size >= LEAST and seconds[size] > LONGEST_STEP) or _levelled_off(seconds)):
            break
    good = (size for size, rate in _rates(seconds).items() if rate >= GOOD_ENOUGH * _best(seconds))
    largest = slots or max(LEAST, next(good))
    kept = {size: each for size, each in seconds.items() if size <= largest}
    quantum = {size: min(MAX_QUANTUM, max(1, round(quantum_seconds / each))) for size, each in kept.items()}
    return Profile(kept, quantum)


@torch.no_grad()
def time_classifier(defence: PurifiedClassifier, shape: tuple[int, int, int], device: torch.device) -> float:
    """Seconds that classifying one image takes, in a small batch."""
    blank = torch.zeros(CLASSIFIED, *shape, device=device).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        defence.classify(blank).cpu()  # waits for the device
        times.append((time.perf_counter() - started) / CLASSIFIED)
    return min(times[1:])


def _rates(seconds: Mapping[int, float]) -> dict[int, float]:
    return {size: size / each for size, each in seconds.items()}


def _best(seconds: Mapping[int, float]) -> float:
    return max(_rates(seconds).values())


def _levelled_off(seconds: Mapping[int, float]) -> bool:
    """Whether the last PATIENCE batch sizes brought nothing."""
    rates = list(_rates(seconds).values())
    return max(seconds) >= LEAST and len(rates) > PATIENCE and max(rates[-PATIENCE:]) <= max(rates[:-PATIENCE])


def _seconds_a_step(trial: Slots, size: int, device: torch.device) -> float:
    times = []
    for _ in range(REPEATS + 1):  # the first one allocates and chooses kernels
        started = time.perf_counter()
        trial.advance(size, REPEATS)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - started) / REPEATS)
    return min(times[1:])  # whatever else runs on the machine can only add to it
