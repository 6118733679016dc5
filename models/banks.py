"""Banks of chain states that persist across training updates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.training.distributed import ALONE, ShardedRows, World


class Fresh(NamedTuple):
    """Where chains start: images [B, C, H, W] in [-1, 1], the latents [B, Z] that a generator made them from, and the
    labels [B] of a conditional energy's chains."""

    images: Tensor
    latents: Tensor | None = None
    labels: Tensor | None = None


Source = Callable[[int], Fresh]
"""As many new starts as asked for."""
FILLED_AT_ONCE = 128
"""Starts that a bank asks for at a time while it is filled: a generator makes no more of them together."""


class PersistentBank:
    """N chains that learning keeps running: each has a slot, a state, an age (updates since it restarted), with a
    generator the latent that it started from, and with a conditional energy the label that it samples.

    A drawn chain returns to its own slot, so every slot is one Markov sequence, restarted now and then. A replay buffer
    (IGEBM, arXiv 1903.08689) appends what it drew and drops its oldest states instead: some chains then go on twice and
    others never, which bounds how stale a state is and makes copies of chains that did not mix. Chains live as long in
    both, geometrically by the chance to restart.

    States and latents are shared out to the processes that train together; ages and labels are with each of them.
    """

    def __init__(self, states: ShardedRows, latents: ShardedRows | None = None, labels: Tensor | None = None) -> None:
        """The first positions, of age 0."""
        self.states, self.latents, self.labels = states, latents, labels
        self.ages = torch.zeros(len(states), dtype=torch.int64, device=states.held.device)

    def __len__(self) -> int:
        return len(self.states)

    @classmethod
    def filled(cls, source: Source, size: int, dtype: torch.dtype, world: World = ALONE) -> "PersistentBank":
        """A bank of `size` new starts, of which a process keeps its share only."""
        share, kept, labels, first = world.share(size), [], [], 0
        while first < size:
            fresh = source(min(FILLED_AT_ONCE, size - first))
            own = slice(max(share.start - first, 0), max(share.stop - first, 0))
            kept.append(Fresh(fresh.images[own].to(dtype), None if fresh.latents is None else fresh.latents[own]))
            labels += [] if fresh.labels is None else [fresh.labels]
            first += len(fresh.images)
        latents = [fresh.latents for fresh in kept if fresh.latents is not None]
        states = ShardedRows(torch.cat([fresh.images for fresh in kept]), size, world)
        return cls(
            states,
            ShardedRows(torch.cat(latents), size, world) if latents else None,
            torch.cat(labels) if labels else None,
        )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """int64 [count] distinct slots, uniformly."""
        if count > len(self):
            raise ValueError(f"cannot draw {count} distinct slots from a bank of {len(self)}")
        return torch.randperm(len(self), generator=generator, device=self.ages.device)[:count]

    def due(self, slots: Tensor, probability: float, max_age: int, generator: torch.Generator) -> Tensor:
        """bool [B]: which chains restart now, by `probability` or because they ran `max_age` updates (0: no limit)."""
        restarted = torch.rand(len(slots), generator=generator, device=self.ages.device) < probability
        return restarted | (self.ages[slots] >= max_age) if max_age else restarted

    def starts(self, slots: Tensor, fresh: Fresh, restarted: Tensor) -> Fresh:
        """Each slot's chain, or where `restarted` the next fresh one; there are as many of these."""
        images = _choose(restarted, fresh.images, self.states.read(slots))
        latents = labels = None
        if self.latents is not None and fresh.latents is not None:
            latents = _choose(restarted, fresh.latents, self.latents.read(slots))
        if self.labels is not None and fresh.labels is not None:
            labels = _choose(restarted, fresh.labels, self.labels[slots])
        return Fresh(images, latents, labels)

    def put(self, slots: Tensor, chains: Fresh, restarted: Tensor) -> None:
        """Return chains to their own slots, one update older, or of age 1 where they restarted."""
        self.replace(slots, chains, torch.where(restarted, 0, self.ages[slots]) + 1)

    def replace(self, slots: Tensor, chains: Fresh, ages: Tensor | int) -> None:
        """Put other chains, of the given ages, in `slots`."""
        self.states.write(slots, chains.images)
        if self.latents is not None and chains.latents is not None:
            self.latents.write(slots, chains.latents)
        if self.labels is not None and chains.labels is not None:
            self.labels[slots] = chains.labels
        self.ages[slots] = ages

    def state_dict(self) -> dict[str, Any]:
        """States, latents, labels and ages of all processes, for a checkpoint; each of them must call it."""
        latents = None if self.latents is None else self.latents.whole()
        return {"states": self.states.whole(), "latents": latents, "labels": self.labels, "ages": self.ages}

    @classmethod
    def restored(
        cls, state: dict[str, Any], device: torch.device, dtype: torch.dtype, world: World = ALONE
    ) -> "PersistentBank":
        """Undo `state_dict`, with any number of processes."""
        latents, labels = state.get("latents"), state.get("labels")
        held = None if latents is None else ShardedRows.of(latents, device, latents.dtype, world)
        labels = None if labels is None else labels.to(device, copy=True)
        bank = cls(ShardedRows.of(state["states"], device, dtype, world), held, labels)
        bank.ages = state["ages"].to(device, copy=True)
        return bank


def _choose(restarted: Tensor, fresh: Tensor, kept: Tensor) -> Tensor:
    chosen = kept.to(fresh.dtype, copy=True)
    chosen[restarted] = fresh
    return chosen
