"""Sprites as in dSprites (Matthey et al. 2017), rendered here: one white shape on black, a function of its factors.

Each pixel is the share of `SAMPLES`^2 points in it that lie inside the shape. Positions, sizes and angles are free:
the grid of `sprite_grid` is what learning sees.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from models.data_batches import ImageDataset
from models.errors import DataError

SAMPLES = 4
SHAPES = ("square", "ellipse", "heart")
REACH = 0.22
"""Half the extent of a shape of scale 1, in sides of the image."""
RENDERED_AT_ONCE = 256


@dataclass(frozen=True)
class SpriteFactors:
    """What N sprites are: every field is [N].

    Args:
        shape: int64, the place in `SHAPES`.
        scale: 1 is a shape that reaches over 0.44 of the side.
        rotation: radians, anticlockwise. A square looks the same after a quarter turn, an ellipse after half a turn.
        x, y: of the centre, in sides of the image from the left and from the top.
    """

    shape: Tensor
    scale: Tensor
    rotation: Tensor
    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def rows(self, index: slice | Tensor) -> "SpriteFactors":
        """Some of them."""
        return SpriteFactors(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True)
class SpriteLevels:
    """The values of each factor in a grid; a position is one of `positions` x `positions` centres."""

    scales: tuple[float, ...] = (0.5, 0.65, 0.8, 1.0)
    rotations: tuple[float, ...] = tuple(math.pi / 8 * turn for turn in range(4))
    positions: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7)

    @property
    def sizes(self) -> dict[str, int]:
        """How many levels each concept has."""
        positions = len(self.positions) ** 2
        return {"shape": len(SHAPES), "scale": len(self.scales), "rotation": len(self.rotations), "position": positions}

    def factors(self, levels: dict[str, Tensor]) -> SpriteFactors:
        """The factors of N sprites, given the level of each concept, int64 [N]; positions run along rows first."""
        row, column = levels["position"] // len(self.positions), levels["position"] % len(self.positions)
        positions = torch.tensor(self.positions)
        return SpriteFactors(
            levels["shape"],
            torch.tensor(self.scales)[levels["scale"]],
            torch.tensor(self.rotations)[levels["rotation"]],
            positions[column],
            positions[row],
        )


@dataclass(frozen=True)
class SpriteGrid:
    """Every combination of the levels: images uint8 [N, 1, S, S], and each concept's level int64 [N] by its name."""

    images: Tensor
    levels: dict[str, Tensor]
    values: SpriteLevels

    def dataset(self, concept: str, kept: Tensor | None = None) -> ImageDataset:
        """The images (those of `kept`, bool [N]) with a concept's levels as labels."""
        if concept not in self.levels:
            raise DataError(f"unknown concept {concept!r} of sprites; known: {', '.join(self.levels)}")
        rows = torch.ones(len(self.images), dtype=torch.bool) if kept is None else kept
        numbered = tuple(f"{concept} {level}" for level in range(self.values.sizes[concept]))
        names = SHAPES if concept == "shape" else numbered
        return ImageDataset("sprites", self.images[rows], self.levels[concept][rows], names)


def sprite_grid(side: int = 32, values: SpriteLevels | None = None) -> SpriteGrid:
    """The sprites of all combinations, the position's level changing fastest; 32 or 64 pixels are usual."""
    values = values or SpriteLevels()
    axes = torch.meshgrid(*(torch.arange(size) for size in values.sizes.values()), indexing="ij")
    levels = {concept: axis.flatten() for concept, axis in zip(values.sizes, axes, strict=True)}
    return SpriteGrid(render_sprites(values.factors(levels), side), levels, values)


def render_sprites(factors: SpriteFactors, side: int) -> Tensor:
    """uint8 [N, 1, side, side]; raises DataError for a shape that there is not, or a scale that is not above 0."""
    if not set(kinds := factors.shape.unique().tolist()) <= set(range(len(SHAPES))):
        raise DataError(f"shapes must be places in {SHAPES}, got {kinds}")
    if not bool((factors.scale > 0).all()):
        raise DataError(f"scales must be above 0, got {float(factors.scale.min())}")
    starts = range(0, len(factors), RENDERED_AT_ONCE)
    parts = [_render(factors.rows(slice(start, start + RENDERED_AT_ONCE)), side) for start in starts]
    return torch.cat(parts) if parts else torch.zeros(0, 1, side, side, dtype=torch.uint8)


def _render(factors: SpriteFactors, side: int) -> Tensor:
    points = (torch.arange(side * SAMPLES) + 0.5) / (side * SAMPLES)
    right = points[None, None, :] - factors.x[:, None, None]
    up = factors.y[:, None, None] - points[None, :, None]
    cosine, sine = (each(factors.rotation)[:, None, None] for each in (torch.cos, torch.sin))
    reach = (REACH * factors.scale)[:, None, None]
    u, v = (cosine * right + sine * up) / reach, (cosine * up - sine * right) / reach
    inside = torch.zeros(u.shape, dtype=torch.bool)
    for place, shape in enumerate(INSIDE):
        chosen = factors.shape == place
        inside[chosen] = shape(u[chosen], v[chosen])
    blocks = inside.view(-1, side, SAMPLES, side, SAMPLES)
    return (blocks.float().mean((2, 4)) * 255.0).round().to(torch.uint8)[:, None]


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) < 0.75


def _ellipse(u: Tensor, v: Tensor) -> Tensor:
    return u.square() + (v / 0.55).square() < 1.0


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """(x^2 + y^2 - 1)^3 < x^2 y^3, at the size of the others and about its centre of mass."""
    x, y = 1.2 * u, 1.2 * v + 0.295
    return (x.square() + y.square() - 1.0).pow(3) < x.square() * y.pow(3)


INSIDE: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (_square, _ellipse, _heart)
"""Of each of `SHAPES`: which points lie inside, in coordinates of the shape."""
