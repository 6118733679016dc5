"""A training run as its page sees it: the recipe, how far it is, what it logged, how old its chains are."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.config import validate
from models.training.diagnostics import WINDOW
from models.training.diagnostics_verdict import FEWEST_UPDATES
from models.training.recipe import EnergyRecipe
from models.training.run import State
from models.training.schedules import changes

Lines = list[dict[str, float]]


@dataclass(frozen=True)
class RunState:
    """What a checkpoint and the files beside it say.

    Args:
        update: of the checkpoint; counts those of the warm start too.
        amendments: changes of the recipe, each with the update after which it held.
        warm_up, lines: what the warm start and the regime logged, oldest first.
        ages: int64 [N] for each bank, by the name that `age_mixes` gives it.
    """

    folder: Path
    recipe: EnergyRecipe
    update: int
    cpu_seconds: float
    amendments: tuple[dict[str, Any], ...]
    warm_up: Lines
    lines: Lines
    ages: dict[str, Tensor]

    @classmethod
    def of(cls, folder: Path, checkpoint: State, metrics: Sequence[dict[str, float]]) -> "RunState":
        """From a checkpoint's contents; raises ConfigError when its recipe is of another kind or an older form."""
        recipe = validate(EnergyRecipe, json.loads(checkpoint["recipe"]), str(folder))
        # A run that goes on has logged more than its checkpoint knows.
        known = [line for line in metrics if line["update"] <= checkpoint["update"]]
        return cls(
            folder,
            recipe,
            checkpoint["update"],
            checkpoint["cpu_seconds"],
            tuple(checkpoint["amendments"]),
            [line for line in known if "warm_start_loss" in line],
            [line for line in known if "energy_gap" in line],
            _ages(checkpoint.get("bank") or {}),
        )

    @property
    def first(self) -> int:
        """Updates before the regime's own."""
        return self.recipe.warm_start.updates

    @property
    def learned(self) -> int:
        """Updates of the regime."""
        return max(0, self.update - self.first)

    @property
    def rate_steps(self) -> list[int]:
        """Updates after which the learning rate was another, as `lines` counts them."""
        steps = [self.first + change for change in changes(self.recipe.learning.learning_rates)]
        return [step for step in steps if step < self.update]

    @property
    def window(self) -> Lines:
        """The last 5,000 updates; without those before a step of the learning rate, where 200 are left."""
        latest = self.lines[-WINDOW:]
        for step in reversed(self.rate_steps):
            since = [line for line in latest if line["update"] > step]
            if len(since) >= FEWEST_UPDATES:
                return since
        return latest


def _ages(bank: State) -> dict[str, Tensor]:
    if "burn_in" in bank:
        return {"burn-in": bank["burn_in"]["ages"].cpu(), "learned from": bank["bank"]["ages"].cpu()}
    if "ages" not in bank:
        return {}
    ages: torch.Tensor = bank["ages"]
    return {"bank": ages.cpu()}
