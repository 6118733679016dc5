"""How old a bank's chains should be: the ages that a recipe implies, in closed form."""

from dataclasses import dataclass

import numpy as np
import torch

from models.training.diagnostics import Series
from models.training.recipe import EnergyRecipe
from models.training.schedules import changes, value_at
from models.training.sections import LongRun, Restarting


@dataclass(frozen=True)
class AgeMix:
    """Ages of chains that grow by one whenever their slot is drawn, unless they restart then.

    Args:
        restart: the chance that a drawn chain restarts.
        first: its age afterwards.
        limit: the age at which a drawn chain restarts for certain; None is no limit.
        drawn: the chance that an update draws a slot.
        steady: whether `restart` has been the same since the regime began.
    """

    restart: float
    first: int
    limit: int | None
    drawn: float
    steady: bool = True

    def stationary(self, most: int) -> Series | None:
        """Shares of the ages 0 .. most after endless learning: (1 - restart)^(age - first), up to a constant.

        None where chains neither restart nor have a limit: then ages grow for ever.
        """
        if self.restart == 0 and self.limit is None:
            return None
        ages = np.arange(most + 1)
        older = np.clip(ages - self.first, 0, None)
        shares: Series = np.where(ages >= self.first, (1 - self.restart) ** older, 0.0)
        if self.limit is None:
            return shares * self.restart
        every = float(((1 - self.restart) ** np.arange(self.limit - self.first + 1)).sum())
        return np.where(ages <= self.limit, shares, 0.0) / every

    def after(self, updates: int, most: int) -> Series | None:
        """Shares of the ages 0 .. most so many updates after a start at age 0; None where that is not in closed form.

        With n draws of a slot, binomial: its last restart was k < n draws ago with chance restart (1 - restart)^k, and
        there was none with chance (1 - restart)^n.
        """
        if self.limit is not None or not self.steady or updates == 0:
            return None
        draws = torch.distributions.Binomial(updates, torch.tensor(self.drawn, dtype=torch.float64))
        exactly = np.zeros(max(most, updates) + 1)
        exactly[: updates + 1] = draws.log_prob(torch.arange(updates + 1, dtype=torch.float64)).exp().numpy()
        more_than = 1 - np.cumsum(exactly)
        ages = np.arange(most + 1)
        older = np.clip(ages - self.first, 0, None)
        restarted = np.where(ages >= self.first, self.restart * (1 - self.restart) ** older * more_than[older], 0.0)
        mix: Series = restarted + (1 - self.restart) ** ages * exactly[: most + 1]
        return mix

    def reach(self) -> int:
        """The age below which 99 % of the stationary chains are; 0 where nothing is stationary."""
        if self.limit is not None:
            return self.limit
        if self.restart == 0:
            return 0
        if self.restart == 1:
            return self.first
        return self.first + int(np.ceil(np.log(0.01) / np.log1p(-self.restart)))


def age_mixes(recipe: EnergyRecipe, update: int) -> dict[str, AgeMix]:
    """What the recipe implies for each of its banks at `update`, which counts from 0; none without a bank.

    The long-run bank takes in a chain of age `burn_in_updates` for one of its own with chance 1 / burn_in_updates a
    draw, for the ages of those that burn in are uniform.
    """
    config = recipe.learning
    if isinstance(config, LongRun):
        age = config.burn_in_updates
        return {
            "burn-in": AgeMix(0.0, 0, age - 1, config.batch_size / config.burn_in_size),
            "learned from": AgeMix(1 / age, age, None, config.batch_size / config.bank_size),
        }
    assert isinstance(config, Restarting)
    if config.rejuvenation_prob is None:
        return {}
    probability = value_at(config.rejuvenation_prob, update)
    steady = not [change for change in changes(config.rejuvenation_prob) if change <= update]
    return {"bank": AgeMix(probability, 1, config.max_age or None, config.batch_size / config.bank_size, steady)}
