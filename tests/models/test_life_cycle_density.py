"""The density experiment to its end on energies that are 0, beside the Gaussian term: every answer is known."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.data import load_dataset
from models.errors import DataError
from models.networks import build_network
from models.pixels import LEVEL_WIDTH, from_uint8
from models.reproduce.life_cycle_density import PICTURES, Size, remake
from models.training.recipe import EnergyRecipe, load_recipe

CPU = torch.device("cpu")
TAU = 0.5


def test_a_gaussian_is_found_to_be_one(tmp_path: Path) -> None:
    for name in ("long", "prior"):
        recipe = load_recipe(f"digits_life_{name}")
        assert isinstance(recipe, EnergyRecipe)
        weights = build_network(recipe.network.name, recipe.network.arguments).state_dict()
        zeros = {key: torch.zeros_like(value) for key, value in weights.items()}
        save_file(zeros, tmp_path / f"{name}.safetensors", {"recipe": recipe.model_dump_json()})
    size = Size(weights=tmp_path, chains=32, steps=(500, 3000), record_every=50, rungs=3)
    found = remake(tmp_path / "run", CPU, size)
    numbers = {number.what: number for number in found.numbers}

    test = from_uint8(load_dataset("digits", "test").images)
    noise = 0.06
    data = float(test.square().sum((1, 2, 3)).mean() + 64 * noise**2) / (2 * TAU**2)
    gap = numbers["U of test images less that of chains after 3,000 steps"]
    assert gap.ours_spread is not None
    assert gap.ours == pytest.approx(data - 32.0, abs=4 * gap.ours_spread)
    # Steps of 0.03 relax over 2 (0.5 / 0.03)^2 = 556 of them, and the second half has 1,500.
    assert 1.0 < (numbers["split R-hat of chains' energy"].ours or 0.0) < 2.0
    log_z = 32 * math.log(2 * math.pi * TAU**2)
    for what in ("log Z, lower end (stochastic lower bound)", "log Z, upper end (estimate)"):
        assert numbers[what].ours == pytest.approx(log_z, abs=0.01)
    exact = -test.square().sum((1, 2, 3)).mean() / (2 * TAU**2) - log_z - 64 * LEVEL_WIDTH**2 / 12 / (2 * TAU**2)
    bits = -(float(exact) / 64 + math.log(LEVEL_WIDTH)) / math.log(2)
    for what in ("test images, by log Z from below", "test images, by log Z from above"):
        assert numbers[what].ours == pytest.approx(bits, abs=0.01)
    assert all((tmp_path / "run" / name).stat().st_size > 1000 for name in PICTURES)
    assert remake(tmp_path / "run", CPU, size) == found


def test_without_the_published_weights_it_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"long\.safetensors, .*prior\.safetensors: missing; `python -m models reproduce"
    ):
        remake(tmp_path / "run", CPU, Size(weights=tmp_path))
