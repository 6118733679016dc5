"""Whether samples are copies of training images: their nearest neighbours, beside those of images never learned.

A small distance alone says little, for flat and blurred images are near to everything. A copy is much nearer to its
original than to the second nearest image: the ratio of the two distances, which has no unit, is small. How small it is
for images that nobody learned says what to expect of chance, and of the near duplicates that datasets have.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from models.config import Frozen
from models.errors import DataError
from models.evaluation.accuracy import Accuracy
from models.evaluation.fidelity import Estimate

ROWS = 500
"""Queries at a time."""
KNOWN_ROWS = 10_000
"""References at a time: 120 MB of colour images of 32 pixels, as floats."""
SPARE = 8
"""Candidates beyond those asked for: |a|^2 + |b|^2 - 2ab, which finds them fast, rounds, and a copy must be at 0."""
SUSPICIOUS = 0.05
"""The share of test images whose ratios count as suspicious: what chance alone would make of the samples."""
QUARTILES = (0.25, 0.5, 0.75)


class Neighbours(NamedTuple):
    """For each query the rows of its nearest references and how far they are, nearest first, both [N, k]."""

    rows: Tensor
    distances: Tensor

    @property
    def ratios(self) -> Tensor:
        """[N]: the nearest distance over the second; 1 where both are 0."""
        first, second = self.distances[:, 0], self.distances[:, 1]
        return torch.where(second > 0, first / second.clamp(min=torch.finfo(second.dtype).tiny), 1.0)


class Closeness(Frozen):
    """Samples against the training set, and as many test images against it.

    Args:
        space: what the distance is measured in.
        samples, held_out: quartiles of the distance to the nearest training image.
        threshold: the ratio of the nearest distance to the second that 5 % of the test images fall below.
        copies: the share of samples below it, with Wilson's interval: 5 % is what images that were not learned have.
    """

    space: str
    count: int
    samples: tuple[float, float, float]
    held_out: tuple[float, float, float]
    threshold: float
    copies: Estimate

    def __str__(self) -> str:
        return (
            f"{self.space}: nearest training image at {self.samples[1]:.3g} (median), of test images at "
            f"{self.held_out[1]:.3g}; {self.copies} nearer to it than to the next as few test images are (5 %)"
        )


def nearest(
    queries: Tensor, references: Tensor, count: int = 2, advance: Callable[[int], None] = lambda queries: None
) -> Neighbours:
    """The `count` nearest of references [M, ...] to each of queries [N, ...], by L2, in float32.

    Args:
        advance: told the number of queries after each part of them.

    Raises:
        DataError: things of different shapes, or fewer than `count` references.
    """
    if queries.shape[1:] != references.shape[1:] or len(references) < count:
        raise DataError(
            f"expected at least {count} references of the queries' shape, got {tuple(queries.shape)} and "
            f"{tuple(references.shape)}"
        )
    known, found = references.flatten(1), []
    for part in queries.flatten(1).float().split(ROWS):
        rows = _candidates(part, known, count + SPARE)
        distances, order = (part[:, None] - known[rows].float()).square().sum(2).sqrt().sort(1)
        found.append((rows.gather(1, order)[:, :count], distances[:, :count]))
        advance(len(part))
    rows, distances = map(torch.cat, zip(*found, strict=True))
    return Neighbours(rows, distances)


def closeness(space: str, samples: Neighbours, held_out: Neighbours) -> Closeness:
    """Sum up two sets of neighbours in one training set."""
    threshold = float(held_out.ratios.double().quantile(SUSPICIOUS))
    share = Accuracy(int((samples.ratios < threshold).sum()), len(samples.ratios))
    return Closeness(
        space=space,
        count=len(samples.ratios),
        samples=_quartiles(samples),
        held_out=_quartiles(held_out),
        threshold=threshold,
        copies=Estimate(value=share.value, interval=share.interval),
    )


def _candidates(queries: Tensor, references: Tensor, count: int) -> Tensor:
    """The rows [N, at most count] of about the nearest references [M, D] to queries [N, D]."""
    rows, distances = [], []
    for first, part in zip(range(0, len(references), KNOWN_ROWS), references.split(KNOWN_ROWS), strict=True):
        near = torch.cdist(queries, part.float()).topk(min(count, len(part)), largest=False)
        rows.append(near.indices + first)
        distances.append(near.values)
    best = torch.cat(distances, 1).topk(min(count, len(references)), largest=False).indices
    return torch.cat(rows, 1).gather(1, best)


def _quartiles(neighbours: Neighbours) -> tuple[float, float, float]:
    at = torch.tensor(QUARTILES, dtype=torch.float64)
    low, middle, high = neighbours.distances[:, 0].double().cpu().quantile(at).tolist()
    return low, middle, high
