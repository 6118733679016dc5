"""The recipes of EBM Life Cycle (arXiv 2205.12243): the paper's numbers, their price, and that each of them trains."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.data import DATASETS
from models.networks import build_network
from models.training.program import train_recipe
from models.training.recipe import FOLDER, EnergyRecipe, load_recipe, recipe_names
from models.training.run import load_checkpoint, read_metrics
from models.training.sections import FromGenerator, LongRun, Restarting

FALLING = ((0, 1e-4), (50_000, 1e-5), (75_000, 1e-6), (100_000, 1e-7), (125_000, 1e-8))
FALLING_LONG = ((0, 2.5e-5), *FALLING[1:])


class Row(NamedTuple):
    """A row of the paper's tables of hyperparameters."""

    network: str
    parameters: float
    updates: int
    batch: int
    bank: int
    noise: float
    step: float
    temperature: float
    steps: int
    rates: Any
    restarts: float | None = None
    max_age: int = 0
    generator: tuple[str, float, bool, float] | None = None  # parameters, batch norm and rate where it learns
    clip: float | None = None
    tau: float | None = None
    burn_in: tuple[int, int] | None = None


CONSTANT = ((0, 1e-4),)
PAPER = {
    "cifar10_short": Row(
        *("sngan32", 4.20e6, 150_000, 128, 10_000, 1e-2, 5e-3, 1e-4, 100, CONSTANT, 0.5, 2),
        generator=("sngan_generator32", 4.3e6, True, 1e-4),
    ),
    "celeba64_short": Row(
        *("sngan64", 19.5e6, 200_000, 128, 10_000, 1e-2, 3e-3, 1e-6, 75, CONSTANT, 0.5, 2),
        generator=("sngan_generator64", 12.2e6, False, 1e-4),
    ),
    "imagenet128_short": Row(
        *("sngan128", 38.4e6, 300_000, 128, 10_000, 1e-2, 3e-3, 1e-7, 50, CONSTANT, 0.5, 2),
        generator=("sngan_generator128", 32.2e6, False, 5e-5),
        clip=50,
    ),
    "cifar10_mid_generator": Row("sngan32", 4.20e6, 150_000, 128, 25_000, 2.5e-2, 1.25e-2, 1e-4, 100, FALLING, 0.05),
    "cifar10_mid_data": Row("sngan32", 4.20e6, 150_000, 128, 20_000, 2e-2, 1e-2, 1e-4, 100, FALLING, 0.025),
    "imagenet224_mid_generator": Row("biggan", 4.29e6, 150_000, 64, 10_000, 3e-2, 2e-2, 1e-5, 100, FALLING, 0.05),
    "cifar10_prior": Row(
        "sngan32", 4.20e6, 150_000, 128, 10_000, 2e-2, 1e-2, 1e-4, 50, CONSTANT, restarts=0.2, tau=0.15
    ),
    "celeba64_prior": Row(
        "sngan64", 19.5e6, 150_000, 128, 10_000, 2e-2, 1e-2, 1e-4, 100, CONSTANT, restarts=0.2, tau=0.15
    ),
    "imagenet64_prior": Row(
        "sngan64", 19.5e6, 150_000, 128, 10_000, 1.5e-2, 1e-2, 1e-5, 100, CONSTANT, restarts=0.2, tau=0.15
    ),
    "cifar10_long": Row(
        *("sngan32", 4.20e6, 250_000, 128, 10_000, 2e-2, 1e-2, 1e-4, 100, FALLING_LONG), tau=0.15, burn_in=(1000, 750)
    ),
    "celeba64_long": Row(
        *("sngan64", 19.5e6, 250_000, 128, 15_000, 2e-2, 1e-2, 1e-4, 100, FALLING_LONG), tau=0.15, burn_in=(1000, 750)
    ),
    "imagenet64_long": Row(
        *("sngan64", 19.5e6, 250_000, 128, 15_000, 1.5e-2, 1e-2, 1e-5, 100, FALLING), tau=0.15, burn_in=(1000, 750)
    ),
}
REGIMES = {"short": "short-run", "prior": "short-run", "mid": "mid-run", "long": "long-run"}
NAMES = pytest.mark.parametrize("name", PAPER)


def recipe_of(name: str, *overrides: str) -> EnergyRecipe:
    recipe = load_recipe(f"paper/{name}", overrides)
    assert isinstance(recipe, EnergyRecipe)
    return recipe


@cache
def energy_of(name: str) -> nn.Module:
    """A recipe's energy without memory, for counting."""
    section = recipe_of(name).network
    with torch.device("meta"):
        return build_network(section.name, section.arguments).eval().requires_grad_(False)


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_every_recipe_of_the_paper_is_here() -> None:
    named = {name for name in recipe_names() if name.startswith("paper/") and not name.startswith("paper/igebm_")}
    assert named == {f"paper/{name}" for name in PAPER}


@NAMES
def test_numbers_are_the_papers(name: str) -> None:
    recipe, row = recipe_of(name), PAPER[name]
    learning, sampler, initialiser = recipe.learning, recipe.sampler, recipe.initialiser
    assert recipe.data.name == name.partition("_")[0]
    assert recipe.regime == REGIMES[name.split("_")[1]]
    assert recipe.warm_start.updates == 0, "the paper has none"
    assert recipe.network.name == row.network
    assert size(energy_of(name)) == pytest.approx(row.parameters, rel=0.005)
    assert (sampler.num_steps, sampler.step_size, sampler.temperature) == (row.steps, row.step, row.temperature)
    assert (learning.num_steps, learning.langevin_clip, learning.flip) == (None, None, False)
    assert (learning.updates, learning.batch_size, learning.bank_size) == (row.updates, row.batch, row.bank)
    assert (learning.data_noise, learning.learning_rates, learning.gradient_clip) == (row.noise, row.rates, row.clip)
    assert (recipe.prior and recipe.prior.tau) == row.tau
    if isinstance(learning, LongRun):
        assert (learning.burn_in_size, learning.burn_in_updates) == row.burn_in
    else:
        assert isinstance(learning, Restarting)
        assert (learning.rejuvenation_prob, learning.max_age) == (((0, row.restarts),), row.max_age)
    assert isinstance(initialiser, FromGenerator) == (row.generator is not None)
    if isinstance(initialiser, FromGenerator) and row.generator is not None:
        with torch.device("meta"):
            network = build_network(initialiser.network.name, initialiser.network.arguments)
        assert initialiser.network.arguments["batch_norm"] == row.generator[2]
        assert size(network) == pytest.approx(row.generator[1], rel=0.02)
        assert network.latent_size == 128
        assert (initialiser.network.name, initialiser.learning_rates) == (row.generator[0], ((0, row.generator[3]),))
    else:
        assert initialiser.kind == ("data" if name == "cifar10_mid_data" else "frozen_generator")


@NAMES
def test_the_plan_is_arithmetic(name: str) -> None:
    """A Langevin step is a forward pass and as much again for its gradient, and a multiply-add is two operations."""
    recipe = recipe_of(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        energy_of(name)(torch.empty(1, *recipe.data.shape, device="meta"))
    long = isinstance(recipe.learning, LongRun)  # burns in as many chains as it learns from, and follows two energies
    chains = recipe.learning.batch_size * (2 if long else 1)
    update = 2 * counter.get_total_flops() * recipe.sampler.num_steps * chains * (2 if long else 1)
    hours = update * recipe.learning.updates / 50e12 / 3600
    text = re.sub(r"\n# ", " ", (FOLDER / "paper" / f"{name}.toml").read_text())
    told = re.search(r"= (\d+) TFLOP; ([\d,]+) updates would take (\d+) hours .* 50 TFLOP/s", text)
    assert told is not None
    assert int(told[1]) == round(update / 1e12)
    assert int(told[2].replace(",", "")) == recipe.learning.updates
    assert int(told[3]) == round(hours)
    assert "Never run by us." in text


Trained = Callable[[str], Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two updates of a recipe, tiny but for its images, after those that it starts from: the run's folder."""
    root = tmp_path_factory.mktemp("paper")
    runs: dict[str, Path] = {}

    def pictures(side: int) -> Path:
        folder = root / f"pictures{side}"
        if not folder.exists():
            (folder / "class").mkdir(parents=True)
            pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
            for number, image in enumerate(pixels):
                Image.fromarray(image).save(folder / "class" / f"{number}.png")
        return folder

    def run(name: str) -> Path:
        if name not in runs:
            plain = recipe_of(name)
            side = plain.data.shape[1]
            overrides = [*small(plain), f"data.folder={pictures(side)}"]
            if DATASETS[plain.data.name].small is not None:
                overrides += ["data.name=folder", f"data.side={side}"]
            for key, path in starts(plain).items():
                short = f"{path.name}_short" if path.parent.name == "generators" else path.parent.name
                overrides.append(f"{key}={run(short)}/checkpoint.pt")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LIMPID_CACHE", str(root / "cache"))
                train_recipe(recipe_of(name, *overrides), root / name, False, False, torch.device("cpu"))
            runs[name] = root / name
        return runs[name]

    return run


def small(recipe: EnergyRecipe) -> list[str]:
    section = recipe.regime.replace("-", "_")
    width = {"sngan32": 8, "sngan64": 16, "sngan128": 16, "biggan": 4}[recipe.network.name]
    overrides = [f"network.arguments.width={width}", "sampler.num_steps=1"]
    overrides += [f"{section}.{key}" for key in ("updates=2", "batch_size=2", "bank_size=5")]
    if isinstance(recipe.learning, LongRun):
        overrides += [f"{section}.burn_in_size=4", f"{section}.burn_in_updates=2"]
    if isinstance(recipe.initialiser, FromGenerator):
        overrides.append(f"initialiser.network.arguments.width={width}")
    return overrides


def starts(recipe: EnergyRecipe) -> dict[str, Path]:
    """The files that a recipe needs, by key."""
    found = {"initialiser.path": getattr(recipe.initialiser, "path", None)}
    found["prior.energy"] = recipe.prior.energy if recipe.prior is not None else None
    return {key: path for key, path in found.items() if path is not None}


@NAMES
def test_two_updates_at_the_real_size(trained: Trained, name: str) -> None:
    """Chains of the right shape that moved, finite losses, and the parts that stand still beside them."""
    folder, recipe = trained(name), recipe_of(name)
    state, lines = load_checkpoint(folder / "checkpoint.pt"), read_metrics(folder)
    assert state["update"] == len(lines) == 2
    assert all(np.isfinite(list(line.values())).all() and line["drift_norm"] > 0 for line in lines)
    shape = recipe.data.shape
    if recipe.regime == "long-run":
        assert state["bank"]["burn_in"]["states"].shape == (4, *shape)
        assert state["bank"]["bank"]["states"].shape == (5, *shape)
    else:
        assert state["bank"]["states"].shape == (5, *shape)
    assert all(("generator_loss" in line) == isinstance(recipe.initialiser, FromGenerator) for line in lines)
    roles = {"initialiser.path": "generator", "prior.energy": "prior energy"}
    assert state["fixed"].keys() == {roles[key] for key in starts(recipe)}
