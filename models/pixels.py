"""The one place where pixel ranges meet.

| where                      | range              |
|----------------------------|--------------------|
| files, datasets, uploads   | uint8, 0 to 255    |
| energies and chains        | float, [-1, 1]     |
| attacks and adapters       | float, [0, 1]      |
| inside a classifier        | normalised per channel |

Budgets are written in 1/255 units and converted here. Chains are never clamped, unless a recipe asks for a box: only
`to_uint8` rounds and clips.
"""

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.config import Frozen

LEVELS = 255.0
LEVEL_WIDTH = 2.0 / LEVELS
"""One level of a uint8 pixel, in [-1, 1] units."""


def from_uint8(pixels: Tensor) -> Tensor:
    """uint8 0..255 of any shape to float32 [-1, 1]."""
    if pixels.dtype != torch.uint8:
        raise TypeError(f"expected uint8 pixels, got {pixels.dtype}")
    return pixels.float() * LEVEL_WIDTH - 1.0


def dequantise(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 of any shape to float32, uniform in the LEVEL_WIDTH around each level, so that a density can describe it.

    `to_uint8` undoes it, but for rounding at the edges. Levels 0 and 255 reach half a level beyond [-1, 1].
    """
    noise = torch.rand(pixels.shape, generator=generator, device=pixels.device) - 0.5
    return from_uint8(pixels) + LEVEL_WIDTH * noise


def dequantise_within(pixels: Tensor, uniform: Tensor) -> Tensor:
    """uint8 pixel p and u in [0, 1), of the same shape, to (p + u) / 128 - 1 in [-1, 1): IGEBM's (arXiv 1903.08689)."""
    return (pixels.float() + uniform) / 128.0 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """Float [-1, 1] of any shape to uint8, clipped and rounded to the nearest level."""
    return ((images.float().clamp(-1.0, 1.0) + 1.0) * (LEVELS / 2.0)).round().to(torch.uint8)


def from_unit(images: Tensor) -> Tensor:
    """Float [0, 1] (the attacks' convention) to [-1, 1]; raises ValueError outside [0, 1]."""
    low, high = (float(bound) for bound in images.detach().aminmax())
    if low < 0.0 or high > 1.0:
        raise ValueError(f"expected pixels in [0, 1], got [{low:.4g}, {high:.4g}]; divide uint8 by 255 first")
    return images * 2.0 - 1.0


def from_unit_unbounded(images: Tensor) -> Tensor:
    """Float [0, 1] with noise added on top to [-1, 1] with the same noise; nothing is checked or clipped."""
    return images * 2.0 - 1.0


def to_unit(images: Tensor) -> Tensor:
    """Float [-1, 1] to [0, 1], unclipped."""
    return (images + 1.0) * 0.5


def budget_to_unit(budget: float) -> float:
    """A budget in 1/255 units as a distance in [0, 1] pixels."""
    return budget / LEVELS


class Normalisation(Frozen):
    """What a classifier reads: (scale * unit - mean) / std per channel, where unit is the image in [0, 1]."""

    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Annotated[float, Field(gt=0)], ...]
    scale: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _same_length(self) -> "Normalisation":
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels, std has {len(self.std)}")
        return self

    def __call__(self, images: Tensor) -> Tensor:
        """Float [-1, 1] images [B, C, H, W] to classifier input of the same shape, unclipped."""
        shape = (1, -1, 1, 1)
        unit = to_unit(images) * self.scale
        normalised: Tensor = (unit - unit.new_tensor(self.mean).view(shape)) / unit.new_tensor(self.std).view(shape)
        return normalised


def distance_l2(a: Tensor, b: Tensor) -> Tensor:
    """L2 distance per image in [0, 1] pixel units; a, b are [-1, 1] images [B, ...]; returns [B]."""
    lengths: Tensor = torch.linalg.vector_norm((a - b).flatten(1), dim=1)
    return lengths * 0.5


def distance_linf(a: Tensor, b: Tensor) -> Tensor:
    """L-infinity distance per image in 1/255 units; a, b are [-1, 1] images [B, ...]; returns [B]."""
    return (a - b).flatten(1).abs().amax(dim=1) * (LEVELS / 2.0)
