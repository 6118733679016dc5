"""Burn-in for long-run learning: chains run for many updates before any update learns from them.

EBM Life Cycle (arXiv 2205.12243): a burn-in bank feeds the bank that the energy learns from. Each update runs chains of
both; a burn-in chain that has come of age takes the place of one of the others.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from models.banks import Fresh, PersistentBank, Source
from models.training.initialisers import Chains


class BurnInChains:
    """`batch_size` chains burning in, then as many of the bank to learn from, which never restart there.

    First ages are uniform in [0, burn_in_updates), for a steady stream of promotions; so the first promoted chains are
    younger than their age says. The same happens again where the number of Langevin steps changes.

    Args:
        burn_in_updates: a burn-in chain is promoted when it has run exactly so many updates since it restarted.
        source: of the starts of burn-in chains after a promotion.
        schedule_changes: updates at which burn-in ages are drawn anew.
    """

    def __init__(
        self,
        burn_in: PersistentBank,
        bank: PersistentBank,
        source: Source,
        batch_size: int,
        burn_in_updates: int,
        schedule_changes: Collection[int],
        generator: torch.Generator,
    ) -> None:
        self.burn_in, self.bank, self._source, self._batch_size = burn_in, bank, source, batch_size
        self._burn_in_updates, self._schedule_changes, self._generator = burn_in_updates, schedule_changes, generator

    def spread_ages(self) -> None:
        """Draw the burn-in ages uniformly."""
        ages = self.burn_in.ages
        self.burn_in.ages = torch.randint(
            self._burn_in_updates, ages.shape, generator=self._generator, device=ages.device
        )

    def start(self, update: int) -> Chains:
        """See `Initialiser`; chains that burn in come first."""
        if update in self._schedule_changes:
            self.spread_ages()
        young = self.burn_in.draw(self._batch_size, self._generator)
        old = self.bank.draw(self._batch_size, self._generator)
        images = torch.cat([self.burn_in.states.read(young), self.bank.states.read(old)]).float()
        slots = torch.cat([young, old])
        return Chains(Fresh(images), slots, torch.zeros_like(slots, dtype=torch.bool))

    def finish(self, chains: Chains, ends: Tensor) -> tuple[Fresh, dict[str, float]]:
        """See `Initialiser`; the negatives are the bank's chains, promotions follow."""
        (young, old), (burning, learned) = chains.slots.chunk(2), ends.chunk(2)
        stayed = chains.restarted.chunk(2)[0]
        self.burn_in.put(young, Fresh(burning), stayed)
        self.bank.put(old, Fresh(learned), stayed)
        mean_age = float(self.bank.ages[old].float().mean())
        ages = self.burn_in.ages[young]
        promoted = ages >= self._burn_in_updates
        promotions = int(promoted.sum())
        self.bank.replace(old[promoted], Fresh(burning[promoted]), ages[promoted])
        self.burn_in.replace(young[promoted], Fresh(self._source(promotions).images), 0)
        return Fresh(learned), {"promotions": float(promotions), "age": mean_age}

    def state_dict(self) -> dict[str, Any]:
        """Both banks."""
        return {"burn_in": self.burn_in.state_dict(), "bank": self.bank.state_dict()}
