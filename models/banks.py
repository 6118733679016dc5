"""Banks of chain states that persist across training updates."""

from typing import Any

import torch
from torch import Tensor


class PersistentBank:
    """N chains that learning keeps running: each has a slot, a state and an age (updates since it restarted).

    A drawn chain returns to its own slot, so every slot is one Markov sequence, restarted now and then.
    """

    def __init__(self, states: Tensor) -> None:
        """`states` [N, C, H, W] are the first positions, of age 0."""
        self.states = states
        self.ages = torch.zeros(len(states), dtype=torch.int64, device=states.device)

    def __len__(self) -> int:
        return len(self.states)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """int64 [count] distinct slots, uniformly."""
        if count > len(self):
            raise ValueError(f"cannot draw {count} distinct slots from a bank of {len(self)}")
        return torch.randperm(len(self), generator=generator, device=self.states.device)[:count]

    def rejuvenate(
        self, slots: Tensor, fresh: Tensor, probability: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Each slot's state, or with `probability` the `fresh` one beside it; returns (states, restarted [count])."""
        restarted = torch.rand(len(slots), generator=generator, device=self.states.device) < probability
        keep_axes = (slice(None),) + (None,) * (fresh.dim() - 1)
        return torch.where(restarted[keep_axes], fresh, self.states[slots]), restarted

    def put(self, slots: Tensor, states: Tensor, restarted: Tensor) -> None:
        """Return chains to their own slots, one update older, or of age 1 where they restarted."""
        self.states[slots] = states.to(self.states.dtype)
        self.ages[slots] = torch.where(restarted, 0, self.ages[slots]) + 1

    def state_dict(self) -> dict[str, Any]:
        """States and ages, for a checkpoint."""
        return {"states": self.states, "ages": self.ages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.states, self.ages = state["states"].to(self.states.device), state["ages"].to(self.ages.device)
