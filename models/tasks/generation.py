"""Images from an energy alone, as Implicit Generation and Generalization in EBMs makes them (IGEBM, arXiv 1903.08689).

A round is a bank of chains that a sampler runs call by call, a few at a time; now and then a drawn chain starts anew
from noise or goes on as another class, so that chains leave the places that they would not leave by themselves. An
ensemble is one run's energy as it was at several updates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.banks import Fresh, PersistentBank, Source
from models.config import Frozen
from models.gradients import Energy
from models.langevin import LangevinConfig, add_energies, run_langevin
from models.noise import SeededNoise

Probability = Annotated[float, Field(ge=0, le=1)]
Member = Callable[[Tensor | None], Energy]
"""Labels int64 [B], None without classes, to what chains with these labels sample."""
Together = Literal["averaged", "switched"]


@dataclass(frozen=True)
class Ensemble:
    """Energies that chains sample together.

    Args:
        together: `averaged`, their mean, of which every step takes a gradient of each; or `switched`, one of them for
            each call of the sampler, in turn, which costs no more than one: what IGEBM's code does.
    """

    members: Sequence[Member]
    together: Together = "averaged"

    def energy(self, call: int, labels: Tensor | None) -> Energy:
        """What call number `call` (from 0) samples."""
        count = len(self.members)
        if self.together == "switched" or count == 1:
            return self.members[call % count](labels)
        return add_energies([(member(labels), float(count)) for member in self.members])


class Round(Frozen):
    """IGEBM's test procedure; the defaults are its code's, where a call is 60 steps for the paper's networks.

    Args:
        bank_size: chains of a round, all of which become samples.
        calls: of the sampler, each on `batch_size` chains drawn from the bank.
        restart_prob: chance that a drawn chain starts anew from noise.
        relabel_prob: chance that it goes on under another label.
        last_calls: without either, so that no sample has just begun.
    """

    bank_size: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=512, ge=1)
    calls: int = Field(default=200, ge=0)
    restart_prob: Probability = 0.01
    relabel_prob: Probability = 0.1
    last_calls: int = Field(default=10, ge=0)


def generate(
    ensemble: Ensemble,
    source: Source,
    sampler: LangevinConfig,
    config: Round,
    generator: torch.Generator,
    advance: Callable[[], None] = lambda: None,
) -> Fresh:
    """One round: images [bank_size, C, H, W] where its chains came to, with their labels where `source` gives any.

    Args:
        source: new chains, with labels for a conditional energy.
        generator: of the draws and the noise, on the chains' device.
        advance: called after each call of the sampler, for a progress bar.
    """
    bank = PersistentBank.filled(source, config.bank_size, torch.float32)
    noise = SeededNoise(generator)
    for call in range(config.calls):
        mixes = call < config.calls - config.last_calls
        slots = bank.draw(min(config.batch_size, config.bank_size), generator)
        restarted = bank.due(slots, config.restart_prob if mixes else 0.0, 0, generator)
        starts = bank.starts(slots, source(int(restarted.sum())), restarted)
        if starts.labels is not None and mixes:
            relabelled = torch.rand(len(slots), generator=generator, device=slots.device) < config.relabel_prob
            drawn = source(int(relabelled.sum())).labels
            assert drawn is not None
            starts = starts._replace(labels=starts.labels.masked_scatter(relabelled, drawn))
        ends, _ = run_langevin(ensemble.energy(call, starts.labels), starts.images, sampler, randn_like=noise)
        bank.put(slots, starts._replace(images=ends), restarted)
        advance()
    return Fresh(bank.states.whole(), labels=bank.labels)


def walk(
    ensemble: Ensemble,
    images: Tensor,
    classes: Sequence[int],
    sampler: LangevinConfig,
    calls: int,
    generator: torch.Generator,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[Tensor]:
    """Chains from images [B, C, H, W] that go on as one class after the other; where they are after each of them.

    One class is IGEBM's class-to-class chain, several that come back to the first one a cycle.
    """
    noise = SeededNoise(generator)
    for label in classes:
        labels = torch.full((len(images),), label, device=images.device)
        for call in range(calls):
            images, _ = run_langevin(ensemble.energy(call, labels), images, sampler, randn_like=noise)
            advance()
        yield images
