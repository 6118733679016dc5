"""Where annealing starts: distributions that can be drawn from exactly, with known normalisation."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.config import Frozen
from models.pixels import LEVEL_WIDTH


class GaussianBase(Frozen):
    """N(0, scale^2 I) on all of space, in [-1, 1] pixel units."""

    kind: Literal["gaussian"] = "gaussian"
    scale: float = Field(gt=0)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Exact samples [B, ...] on the generator's device."""
        return self.scale * torch.randn(shape, generator=generator, device=generator.device)

    def potential(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(x) [B] in float64, normalisation included, and its gradient in x's dtype."""
        flat = x.flatten(1).double()
        constant = 0.5 * flat.shape[1] * math.log(2 * math.pi * self.scale**2)
        return flat.square().sum(1) / (2 * self.scale**2) + constant, x / self.scale**2

    def move(self, x: Tensor, velocity: Tensor, duration: Tensor) -> tuple[Tensor, Tensor]:
        """Free flight: position and velocity after each state's `duration` [B, 1, ...]."""
        return x + duration * velocity, velocity

    def outside(self, x: Tensor) -> Tensor:
        """bool [B]: which states have density 0."""
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)


class BoxBase(Frozen):
    """Uniform on [low, high]^D, by default where dequantised pixels can be.

    The target is then restricted to the box, and log Z is that of its mass there.
    """

    kind: Literal["box"] = "box"
    low: float = -1.0 - LEVEL_WIDTH / 2
    high: float = 1.0 + LEVEL_WIDTH / 2

    @model_validator(mode="after")
    def _ordered(self) -> "BoxBase":
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        return self

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Exact samples [B, ...] on the generator's device."""
        return self.low + (self.high - self.low) * torch.rand(shape, generator=generator, device=generator.device)

    def potential(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(x) [B] in float64 for x in the box, and its gradient, 0."""
        constant = x[0].numel() * math.log(self.high - self.low)
        return torch.full((len(x),), constant, dtype=torch.float64, device=x.device), torch.zeros_like(x)

    def move(self, x: Tensor, velocity: Tensor, duration: Tensor) -> tuple[Tensor, Tensor]:
        """Free flight that bounces off the walls, which keeps volumes and can be run backwards, as a sampler must."""
        width = self.high - self.low
        place = (x + duration * velocity - self.low).remainder(2 * width)
        back = place > width
        return self.low + torch.where(back, 2 * width - place, place), torch.where(back, -velocity, velocity)

    def outside(self, x: Tensor) -> Tensor:
        """bool [B]: which states have density 0."""
        beyond: Tensor = ((x < self.low) | (x > self.high)).flatten(1).any(1)
        return beyond


Base = Annotated[GaussianBase | BoxBase, Field(discriminator="kind")]
