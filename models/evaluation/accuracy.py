"""Accuracy as a count with an interval, and the defence's answers on many images."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.noise import SeededNoise
from models.purifier import Preset, PurifiedClassifier

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `total` images, with the Wilson interval."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """The share of correct images."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % score interval (Wilson 1927): honest near 0 and 1, unlike the normal one."""
        n, p = self.total, self.value
        centre = (p + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
        half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(p * (1 - p) / n + Z_95**2 / (4 * n**2))
        return max(0.0, centre - half), min(1.0, centre + half)

    def as_json(self) -> dict[str, Any]:
        """Counts, share and interval."""
        low, high = self.interval
        shares = {"accuracy": self.value, "low": low, "high": high}
        return {"correct": self.correct, "total": self.total, **{k: round(v, 5) for k, v in shares.items()}}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}] ({self.correct}/{self.total})"


def accuracy(logits: Tensor, labels: Tensor) -> Accuracy:
    """Logits [B, K] against labels [B]."""
    return Accuracy(int((logits.argmax(1).cpu() == labels.cpu()).sum()), len(labels))


@torch.no_grad()
def bare_logits(defence: PurifiedClassifier, images: Tensor) -> Tensor:
    """The classifier's logits [B, K] on [-1, 1] images, without purification."""
    return torch.cat([defence.classify(batch) for batch in images.split(500)])


@torch.no_grad()
def purified_logits(
    defence: PurifiedClassifier,
    images: Tensor,
    preset: Preset,
    seed: int,
    advance: Callable[[int], None] = lambda image_steps: None,
) -> Tensor:
    """`defence.replicate_logits` with seeded noise, [R, B, K].

    Args:
        images: [B, C, H, W] in [-1, 1].
        advance: told the number of image-steps after each step, for a progress bar.
    """
    noise = SeededNoise(torch.Generator(images.device).manual_seed(seed))
    return defence.replicate_logits(images, preset, noise, lambda _, state, info: advance(len(state)))
