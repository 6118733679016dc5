"""How much of a training update is not Langevin steps: the same updates with and without them, taking turns."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import Field

from models.config import Frozen
from models.data import ImageDataset, load_dataset
from models.networks import build_network
from models.training.build import build_parts
from models.training.distributed import ALONE
from models.training.energy_loop import train_energy
from models.training.recipe import EnergyRecipe, load_recipe
from models.training.run import TrainingRun
from tests.benchmarks.aims import at_most

AIM = 0.10
WARM_UP = 2
WAYS = ("with steps", "without steps")


class Setting(Frozen):
    """A recipe of mid-run learning, and how many updates a turn times."""

    recipe: str = "cifar10_midrun_light"
    rounds: int = Field(3, ge=1)
    updates: int = Field(8, ge=1)


class _Stopwatch(TrainingRun):
    """A run that notes when each update was logged, and saves nothing."""

    def __init__(self, folder: Path, recipe: EnergyRecipe) -> None:
        super().__init__(folder, recipe, resume=False)
        self.times: list[float] = []

    def log(self, update: int, values: Mapping[str, float], echo: bool = True) -> None:
        self.times.append(time.perf_counter())

    def save(self, update: int, state: Mapping[str, Any]) -> None:
        pass


def measure_training(setting: Setting) -> dict[str, Any]:
    """Seconds of an update with its steps and without, and the share that is not steps."""
    overrides = ["warm_start.updates=0", f"mid_run.updates={setting.updates + WARM_UP}"]
    recipes = {WAYS[0]: load_recipe(setting.recipe, overrides)}
    recipes[WAYS[1]] = load_recipe(setting.recipe, [*overrides, "sampler.num_steps=0"])
    data = load_dataset(recipes[WAYS[0]].data.name, "train")
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(setting.rounds):
        for way, recipe in recipes.items():
            assert isinstance(recipe, EnergyRecipe)
            seconds[way].append(_seconds_an_update(recipe, data))
    shares = [without / whole for whole, without in zip(*seconds.values(), strict=True)]
    outside = statistics.median(shares)
    rows = [
        {"way": way, "median": statistics.median(found), "fastest": min(found), "slowest": max(found)}
        for way, found in seconds.items()
    ]
    aims = [at_most("share of an update that is not Langevin steps", outside, AIM)]
    return {"rows": rows, "shares": shares, "outside": outside, "aims": aims}


def _seconds_an_update(recipe: EnergyRecipe, data: ImageDataset) -> float:
    """The median of a short run's updates, the first ones left out."""
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.network.name, recipe.network.arguments)
    with TemporaryDirectory() as folder:
        run = _Stopwatch(Path(folder), recipe)
        train_energy(recipe, build_parts(recipe, network, data, torch.device("cpu"), ALONE), run)
        run.close()
    return statistics.median(b - a for a, b in zip(run.times[WARM_UP:], run.times[WARM_UP + 1 :], strict=False))
