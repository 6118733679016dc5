"""Where the chains of an update start, and where they go when it has run them.

Three sources (noise, data, a generator), each alone or with a bank of chains that persist.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from models.banks import Fresh, PersistentBank, Source
from models.training.schedules import value_at


class Chains(NamedTuple):
    """The chains of one update before they run: where they start, their slots, and which ones restarted."""

    starts: Fresh
    slots: Tensor
    restarted: Tensor


class Initialiser(Protocol):
    """Gives an update its chains and takes their ends back."""

    def start(self, update: int) -> Chains:
        """The chains of an update, which counts from 0."""
        ...

    def finish(self, chains: Chains, ends: Tensor) -> tuple[Fresh, dict[str, float]]:
        """The negatives [B, C, H, W], with their latents and labels, and what to log; keeps what persists."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What persists, for a checkpoint."""
        ...


class FreshChains:
    """`batch_size` chains that start anew at every update."""

    def __init__(self, source: Source, batch_size: int) -> None:
        self._source, self._batch_size = source, batch_size

    def start(self, update: int) -> Chains:
        """See `Initialiser`."""
        starts = self._source(self._batch_size)
        places = torch.arange(len(starts.images), device=starts.images.device)
        return Chains(starts, places, torch.ones_like(places, dtype=torch.bool))

    def finish(self, chains: Chains, ends: Tensor) -> tuple[Fresh, dict[str, float]]:
        """See `Initialiser`."""
        return chains.starts._replace(images=ends), {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing persists."""
        return {}


class PersistentChains:
    """Chains of a bank, of which some restart.

    Args:
        source: of the starts of those.
        rejuvenation_prob: a schedule.
        max_age: updates after which a chain restarts for certain; 0 is no limit.
    """

    def __init__(
        self,
        bank: PersistentBank,
        source: Source,
        batch_size: int,
        rejuvenation_prob: Sequence[tuple[int, float]],
        max_age: int,
        generator: torch.Generator,
    ) -> None:
        self.bank, self._source, self._batch_size = bank, source, batch_size
        self._rejuvenation_prob, self._max_age, self._generator = rejuvenation_prob, max_age, generator

    def start(self, update: int) -> Chains:
        """See `Initialiser`."""
        slots = self.bank.draw(self._batch_size, self._generator)
        probability = value_at(self._rejuvenation_prob, update)
        restarted = self.bank.due(slots, probability, self._max_age, self._generator)
        fresh = self._source(int(restarted.sum()))
        return Chains(self.bank.starts(slots, fresh, restarted), slots, restarted)

    def finish(self, chains: Chains, ends: Tensor) -> tuple[Fresh, dict[str, float]]:
        """See `Initialiser`."""
        negatives = chains.starts._replace(images=ends)
        self.bank.put(chains.slots, negatives, chains.restarted)
        ages = self.bank.ages[chains.slots]
        return negatives, {"restarts": float(chains.restarted.sum()), "age": float(ages.float().mean())}

    def state_dict(self) -> dict[str, Any]:
        """The bank."""
        return self.bank.state_dict()


def noise_source(shape: Sequence[int], generator: torch.Generator) -> Source:
    """Uniform noise in [-1, 1], [count, *shape], on the generator's device."""

    def draw(count: int) -> Fresh:
        return Fresh(torch.rand(count, *shape, generator=generator, device=generator.device) * 2.0 - 1.0)

    return draw


def labelled_source(source: Source, labels: Tensor, generator: torch.Generator) -> Source:
    """The same starts, each with a label drawn from those [N] of the data: likelihood weighs the classes as data does.

    A chain keeps its label for life. IGEBM's code gives drawn chains the labels of the update's positives, so that they
    go on as another class than they were.
    """

    def draw(count: int) -> Fresh:
        rows = torch.randint(len(labels), (count,), generator=generator, device=generator.device)
        return source(count)._replace(labels=labels[rows])

    return draw


def turned_source(source: Source, generator: torch.Generator) -> Source:
    """The same starts [B, C, S, S], each mirrored left to right, upside down and along the diagonal by three coins."""

    def draw(count: int) -> Fresh:
        fresh = source(count)
        coins = torch.rand(3, count, 1, 1, 1, generator=generator, device=generator.device) < 0.5
        images = torch.where(coins[0], fresh.images.flip(3), fresh.images)
        images = torch.where(coins[1], images.flip(2), images)
        return fresh._replace(images=torch.where(coins[2], images.transpose(2, 3), images).contiguous())

    return draw


def generator_source(network: nn.Module, generator: torch.Generator) -> Source:
    """G(z), z ~ N(0, I), from the generator as it is at each call.

    In evaluation mode: with batch norm a start is then a function of its latent alone, and the one that a user of the
    trained generator gets.
    """
    latent_size: int = network.latent_size  # type: ignore[assignment]

    def draw(count: int) -> Fresh:
        latents = torch.randn(count, latent_size, generator=generator, device=generator.device)
        with torch.no_grad():
            return Fresh(network.eval()(latents).contiguous(), latents)

    return draw
