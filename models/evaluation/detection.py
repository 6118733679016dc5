"""Scores of images under an energy: how unlike the data it finds them. Every score is higher for a stranger image.

| score           | of one image                                                                             |
|-----------------|------------------------------------------------------------------------------------------|
| `energy`        | U: low is likely; the score of IGEBM (arXiv 1903.08689)                                  |
| `typicality`    | distance of U to its mean over held-out clean images: both sides are unusual (1906.02994) |
| `gradient_norm` | length of dU/dx: data lie where a density is flat (JEM, arXiv 1912.03263)                 |
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from models.gradients import Energy, gradient_of
from models.precision import Precision
from models.purifier import CHAINS_PER_BATCH

SCORES = ("energy", "typicality", "gradient_norm")


class Response(NamedTuple):
    """What an energy makes of each image, float32 [N] on the CPU: U, and the length of dU/dx in [-1, 1] pixel units."""

    energy: Tensor
    gradient_norm: Tensor


def respond(
    energy: Energy, images: Tensor, precision: Precision, advance: Callable[[int], None] = lambda images: None
) -> Response:
    """U and |dU/dx| of images [N, C, H, W] in [-1, 1], as chains compute them.

    Args:
        energy: [B, C, H, W] -> [B]; of a conditional energy, its minimum over the labels.
        advance: told the number of images after each batch.
    """
    gradient = gradient_of(energy, precision)
    rows = []
    for batch in images.split(CHAINS_PER_BATCH):
        u, grad = gradient(batch.contiguous())
        rows.append(torch.stack([u, grad.float().flatten(1).norm(dim=1)]).cpu())
        advance(len(batch))
    return Response(*torch.cat(rows, dim=1))


def scores_of(response: Response, mean: float) -> dict[str, Tensor]:
    """Each of SCORES, float64 [N]; `mean` is that of U over clean images which are not scored."""
    u = response.energy.double()
    values = (u, (u - mean).abs(), response.gradient_norm.double())
    return dict(zip(SCORES, values, strict=True))
