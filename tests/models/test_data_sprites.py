"""Sprites are what their factors say: areas, centres, turns and symmetries known from geometry."""

import math

import pytest
import torch
from torch import Tensor

from models.data_sprites import REACH, SHAPES, SpriteFactors, SpriteLevels, render_sprites, sprite_grid
from models.errors import DataError


def sprites(shape: int, side: int = 64, **given: list[float]) -> Tensor:
    """Images in [0, 1], [N, side, side]: factors that are not given are those of the middle."""
    count = len(next(iter(given.values()), [0.0]))
    usual = {"scale": [1.0] * count, "rotation": [0.0] * count, "x": [0.5] * count, "y": [0.5] * count}
    factors = {name: torch.tensor(values) for name, values in (usual | given).items()}
    return render_sprites(SpriteFactors(torch.full((count,), shape), **factors), side)[:, 0] / 255


def moments(images: Tensor) -> Tensor:
    """Area in sides^2, then the centre (x, y) in sides: [N, 3]."""
    side = images.shape[1]
    at = (torch.arange(side) + 0.5) / side
    area = images.sum((1, 2))
    return torch.stack([area / side**2, (images.sum(1) @ at) / area, (images.sum(2) @ at) / area], 1)


# A square of half-side 0.75, an ellipse of half-axes 1 and 0.55, in units of the reach.
@pytest.mark.parametrize(("shape", "area"), [(0, 1.5**2), (1, math.pi * 0.55)])
@pytest.mark.parametrize("side", [32, 64])
def test_areas_grow_with_the_square_of_the_scale_and_do_not_turn(shape: int, area: float, side: int) -> None:
    found = moments(sprites(shape, side, scale=[0.5, 1.0, 1.0], rotation=[0.3, 0.0, 1.0]))[:, 0]
    expected = area * REACH**2 * torch.tensor([0.25, 1.0, 1.0])
    assert torch.allclose(found, expected, rtol=0.02)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_a_sprite_moves_by_what_its_position_says(shape: int) -> None:
    found = moments(sprites(shape, x=[0.5, 0.7, 0.3], y=[0.5, 0.3, 0.6]))
    moved = found[1:, 1:] - found[0, 1:]
    assert torch.allclose(moved, torch.tensor([[0.2, -0.2], [-0.2, 0.1]]), atol=2e-3)
    assert float((found[0, 1:] - 0.5).abs().max()) < 2e-3, "shapes lie about their centre"


def test_turns_are_anticlockwise_and_symmetries_are_the_shapes_own() -> None:
    quarter = math.pi / 2
    for shape, same_after in enumerate((quarter, 2 * quarter, 4 * quarter)):
        turned = sprites(shape, rotation=[0.1, 0.1 + same_after, 0.1 + same_after / 2])
        assert float((turned[0] - turned[1]).abs().mean()) < 1e-3
        assert float((turned[0] - turned[2]).abs().mean()) > 0.01, SHAPES[shape]
    upright, left = sprites(2, rotation=[0.0, quarter])
    assert torch.equal(torch.rot90(upright), left)
    widths = upright.sum(1)
    assert float(widths[26]) > 2 * float(widths[44]) > 0, "a heart stands on its point"


def test_edges_are_antialiased() -> None:
    """A square's edge within a pixel shows as the share of the pixel that is covered, in quarters."""
    shift = 1 / 64 / 4
    row = sprites(0, x=[0.5, 0.5 + shift])[:, 32]
    assert float((row[1] - row[0]).sum().abs()) < 2 / 255, "what it loses on the left it gains on the right"
    assert int((row[1] != row[0]).sum()) == 2
    assert float((row[1] - row[0]).abs().max()) == pytest.approx(0.25, abs=0.01)


def test_the_grid_has_every_combination_once_and_its_slices_are_labelled() -> None:
    values = SpriteLevels(scales=(0.5, 1.0), rotations=(0.0,), positions=(0.3, 0.7))
    grid = sprite_grid(32, values)
    combinations = torch.stack(list(grid.levels.values()), 1)
    assert len(grid.images) == 3 * 2 * 1 * 4 == len(combinations.unique(dim=0))
    assert len(grid.images.flatten(1).unique(dim=0)) == len(grid.images)
    kept = grid.levels["scale"] == 1
    slice_of_positions = grid.dataset("position", kept)
    assert slice_of_positions.labels.tolist() == [0, 1, 2, 3] * 3
    assert torch.equal(slice_of_positions.images, grid.images[kept])
    # Level 1 of a position is right of level 0, level 2 below it.
    centres = moments(slice_of_positions.images[:3, 0] / 255)[:, 1:]
    assert torch.allclose(centres - centres[0], torch.tensor([[0.0, 0.0], [0.4, 0.0], [0.0, 0.4]]), atol=5e-3)


def test_what_is_not_a_sprite_is_refused() -> None:
    with pytest.raises(DataError, match=r"places in \('square', .*got \[3\]"):
        sprites(3)
    with pytest.raises(DataError, match="above 0, got -0.5"):
        sprites(0, scale=[1.0, -0.5])
    with pytest.raises(DataError, match="unknown concept 'colour' of sprites; known: shape"):
        sprite_grid(8, SpriteLevels((1.0,), (0.0,), (0.5,))).dataset("colour")
