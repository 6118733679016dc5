"""How composed concepts are judged: by combinations that were seen or not, and a recogniser that sees what is there."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.data_sprites import SpriteGrid, SpriteLevels, sprite_grid
from models.errors import CheckpointError, ConfigError
from models.pixels import from_uint8
from models.reproduce.igebm_composition import remake
from models.tasks.concept_runs import DECODER, ENERGIES, REAL, Concepts, Settings, recognised_errors
from models.tasks.concepts import Recogniser, combinations, learn_decoder, learn_recogniser, seen_combinations

VALUES = SpriteLevels(scales=(0.6, 1.1), rotations=(0.0,), positions=(0.35, 0.65))
SIDE = 16
SMALL = Settings(
    overrides=(
        "implicit_run.updates=200",
        "implicit_run.bank_size=200",
        "implicit_run.batch_size=15",
        "network.arguments.widths=[64, 64]",
    ),
    side=SIDE,
    scales=VALUES.scales,
    rotations=VALUES.rotations,
    positions=VALUES.positions,
    fractions=(1.0,),
    samples=4,
    composed=24,
    steps=200,
    recogniser_updates=200,
    decoder_updates=60,
)


@pytest.fixture(scope="module")
def grid() -> SpriteGrid:
    return sprite_grid(SIDE, VALUES)


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return learn_recogniser(SIDE, VALUES, SMALL.recogniser_updates, seed=0)


def test_a_larger_fraction_sees_all_that_a_smaller_one_does() -> None:
    seen = [seen_combinations((4, 9), (3, 4), fraction, seed=0) for fraction in (0.0, 0.25, 0.5, 1.0)]
    assert [int(each.sum()) for each in seen] == [12, 18, 24, 36]
    assert bool(seen[0][3].all())
    assert bool(seen[0][:, 4].all())
    for fewer, more in pairwise(seen):
        assert bool((fewer <= more).all())
    with pytest.raises(ConfigError, match="between 0 and 1, got 1.5"):
        seen_combinations((4, 9), (3, 4), 1.5, seed=0)


def test_a_combination_is_one_number(grid: SpriteGrid) -> None:
    found = combinations(grid, "scale", "position")
    assert sorted(found.unique().tolist()) == list(range(8))
    assert torch.equal(found // 4, grid.levels["scale"])
    assert torch.equal(found % 4, grid.levels["position"])


def asked(grid: SpriteGrid, **moved: int) -> dict[str, Tensor]:
    """The true levels of scale and position, some of them turned to the next."""
    names = ("scale", "position")
    return {name: (grid.levels[name] + moved.get(name, 0)) % grid.values.sizes[name] for name in names}


def test_real_sprites_have_the_errors_of_what_they_are_not(grid: SpriteGrid, recogniser: Recogniser) -> None:
    images = from_uint8(grid.images)
    found = recogniser.concepts(images, VALUES)
    assert float((found["position"] == grid.levels["position"]).float().mean()) > 0.95
    true = recognised_errors(recogniser, images, asked(grid), VALUES)
    assert true.position < 1.5
    assert true.scale < 0.2
    # The other scale is a factor 11/6 away; the next place is 0.3 sides to the right, or that and a line away.
    other = recognised_errors(recogniser, images, asked(grid, scale=1), VALUES)
    assert other.scale == pytest.approx((0.5 / 0.6 + 0.5 / 1.1) / 2, abs=0.15)
    assert other.position == true.position
    moved = recognised_errors(recogniser, images, asked(grid, position=1), VALUES)
    assert moved.position == pytest.approx(0.3 * SIDE * (1 + 2**0.5) / 2, abs=1.2)


def test_a_decoder_draws_the_mean_of_what_it_saw(grid: SpriteGrid) -> None:
    kept = grid.levels["shape"] == 0
    decoder = learn_decoder(grid, ("scale", "position"), kept, updates=250, seed=0)
    drawn = decoder(grid.levels["scale"][kept], grid.levels["position"][kept])
    errors = (drawn - from_uint8(grid.images[kept])).square().flatten(1).mean(1)
    assert float(errors.max()) < 0.5 * float(from_uint8(grid.images[kept]).var())


def test_added_energies_draw_the_scale_and_the_place_that_were_asked_for(
    tmp_path: Path, grid: SpriteGrid, recogniser: Recogniser
) -> None:
    """Two scales and four places, all of them seen, but never with both labels: by chance one in eight is right."""
    finding = remake(tmp_path, torch.device("cpu"), SMALL)
    (crossed,) = finding.details["cross products"]
    assert crossed["images"] == 3 * 8
    ours = crossed["errors"][ENERGIES]
    assert ours["position"] < 0.3 * SIDE / 2, "nearer to the place asked for than to any other"
    assert ours["scale"] < 0.5 / (0.6 + 1.1), "nearer to the scale asked for than to the other"
    assert max(ours["position"], crossed["errors"][REAL]["position"]) < crossed["errors"][DECODER]["position"]
    assert finding.details["recognised, %"]["position"]["position"] > 60
    assert f"{ours['position']:.2f} pixels" in finding.why
    assert not (tmp_path / "fraction1" / "scale").exists(), "what saw all sprites is not learned twice"
    logic = finding.details["recognised of OR and NOT, %"]
    ends = [logic[f"first place OR last place: {end} place"] for end in ("first", "last")]
    assert sum(ends) > 70, "by chance half of them"
    assert logic["shape NOT middle place: middle place"] <= logic["shape: middle place"]
    for picture in finding.pictures:
        assert (tmp_path / picture).stat().st_size > 5_000
    concepts = Concepts(tmp_path, SMALL, grid, recogniser, torch.device("cpu"))
    kept = concepts.crossed(1.0)
    assert kept.model_dump(exclude={"asked"}, mode="json") == crossed, "a finished cross product is found again"
    with pytest.raises(CheckpointError, match=r"errors\.json belongs to another run .* choose another folder"):
        replace(concepts, settings=SMALL.model_copy(update={"steps": 7})).crossed(1.0)
