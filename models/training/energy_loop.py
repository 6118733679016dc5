"""Learning an energy by maximum likelihood, the same update in every regime of EBM Life Cycle (arXiv 2205.12243) and
of Implicit Generation and Generalization in EBMs (IGEBM, arXiv 1903.08689).

Each update takes its chains from an initialiser, runs K Langevin steps and descends
(mean f(positives) - mean f(negatives)) / T. Where chains start, how long they live and what the learning rate falls to
make it short-run (synthesis), mid-run (defence) or long-run (density) learning; IGEBM's objective keeps f small too.
"""

import math
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from models.banks import Fresh
from models.composed import ClippedEnergy, Conditional
from models.console import progress_bar
from models.errors import TrainingDiverged
from models.gradients import Energy, rows_of
from models.langevin import ChainInfo, LangevinConfig, add_energies, run_langevin
from models.networks.conditioning import classes_of
from models.noise import SeededNoise
from models.precision import autocast
from models.streams import Stream
from models.training.average import WeightAverage
from models.training.build import EnergyParts, begin_chains
from models.training.chain_gradient import run_last_steps
from models.training.diagnostics import plot_diagnostics
from models.training.distributed import NoiseOfShare, World
from models.training.energy_state import EnergyTraining
from models.training.objectives import label_loss, objective
from models.training.optimization import clip_each, clip_to_spread, set_learning_rate
from models.training.page import write_page
from models.training.page_pictures import save_pictures
from models.training.recipe import EnergyRecipe
from models.training.run import TrainingRun
from models.training.schedules import value_at
from models.training.sections import ImplicitRun, Learning
from models.training.warm_start import warm_start


def train_energy(recipe: EnergyRecipe, parts: EnergyParts, run: TrainingRun) -> WeightAverage:
    """Warm start, then the recipe's regime, resumed where an earlier session stopped; returns the averaged weights."""
    training = parts.training
    if (state := run.restore()) is not None:
        training.load_state_dict({"data": _data_before_streams(state["update"], recipe.warm_start.updates)} | state)
    if training.update < recipe.warm_start.updates:
        warm_start(training, recipe.sampler, recipe.warm_start, run)
    if training.saved_chains is None:
        _leave_warm_start(training, recipe.learning)
    training.chains = begin_chains(recipe, parts)
    training.average.decay = recipe.learning.average_decay
    _learn(recipe, parts, run)
    return training.average


def _data_before_streams(update: int, warm_updates: int) -> dict[str, Any]:
    """Where the streams of a checkpoint stand that was written before there were any.

    Its one random generator can not say: warm start and positives go on at the batch of their update, with others than
    they would have had; restarts begin.
    """
    warm = min(update, warm_updates)
    return {"warm start": {"batches": warm}, "positives": {"batches": update - warm}}


def _leave_warm_start(training: EnergyTraining, config: Learning) -> None:
    """The regime starts from the averaged weights, with a fresh optimizer."""
    training.network.load_state_dict(training.average.network.state_dict())
    training.average.updates = 0
    rate, betas = value_at(config.learning_rates, 0), config.adam_betas
    training.optimizer = torch.optim.Adam(training.network.parameters(), rate, betas)


def _learn(recipe: EnergyRecipe, parts: EnergyParts, run: TrainingRun) -> None:
    training, config = parts.training, recipe.learning
    positives = _positives(training, config)
    first_update = recipe.warm_start.updates
    last_update = first_update + config.updates
    with progress_bar(recipe.regime, config.updates, training.update - first_update) as progress:
        while training.update < last_update:
            values, batch, negatives = _update(recipe, parts, positives, training.update - first_update)
            training.update += 1
            if not all(math.isfinite(value) for value in values.values()):
                raise TrainingDiverged(f"{recipe.regime} learning at update {training.update}: {values}")
            done = training.update == last_update
            run.log(training.update, values, echo=done or training.update % config.log_every == 0)
            progress.advance(progress.task_ids[0])
            if config.keep_every and training.update % config.keep_every == 0:
                run.keep(training.update, training.average.network.state_dict())
            if done or training.update % config.checkpoint_every == 0:
                training.check_identical()
                checkpoint = run.save(training.update, training.state_dict())
                if training.world.leads:
                    metrics, generator = run.metrics(), training.generator
                    save_pictures(run.folder, negatives, batch, generator.average.network if generator else None)
                    plot_diagnostics(metrics, recipe.unit, run.folder / "diagnostics.png")
                    write_page(run.folder, checkpoint, metrics)


def _positives(training: EnergyTraining, config: Learning) -> Iterator[Fresh]:
    """This process's positives, with their labels where the energy is conditional."""
    count = config.batch_size
    batches = training.data.batches("positives", count)
    images = training.images(batches, count, config.data_noise, config.dequantise)
    labels: Iterator[Tensor | None] = repeat(None)
    if classes_of(training.network):
        labels = (each.to(training.device) for each in training.data.labels("positives", count))
    return (Fresh(batch, labels=own) for batch, own in zip(images, labels, strict=False))


def _update(
    recipe: EnergyRecipe, parts: EnergyParts, positives: Iterator[Fresh], update: int
) -> tuple[dict[str, float], Fresh, Fresh]:
    """One update, which counts from 0: what it logs, its positives (this process's) and its negatives [B, C, H, W]."""
    training, config, unit = parts.training, recipe.learning, recipe.unit
    assert training.chains is not None
    chains = training.chains.start(update)
    ends, drift_norm, through_chains = _run_to_their_ends(recipe, parts, chains.starts, update)
    negatives, chain_values = training.chains.finish(chains, ends)

    set_learning_rate(training.optimizer, value_at(config.learning_rates, update))
    batch = next(positives)
    # Dropout draws from PyTorch's own generator, which no checkpoint holds.
    masks = Stream((recipe.seed, "dropout", update, training.world.rank))
    torch.manual_seed(int(masks.generator().integers(2**63)))
    positive, negative = descend(training, batch, negatives, unit, config, through_chains)
    values = {
        "energy_gap": (positive - negative) / unit,
        "drift_norm": float(drift_norm[-config.batch_size :].mean()),
        "energy_positives": positive / unit,
        **chain_values,
    }
    if training.generator is not None:
        assert negatives.latents is not None
        values["generator_loss"] = training.generator.learn(
            negatives.latents, negatives.images, update, config.gradient_clip, training.world
        )
    return values, batch, negatives


def _run_to_their_ends(
    recipe: EnergyRecipe, parts: EnergyParts, starts: Fresh, update: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Where the chains come to, their mean drift lengths [N], and the term of the loss that goes through them."""
    training, config = parts.training, recipe.learning
    energy, sampler = potential(recipe, parts, update, starts.labels)
    last = config.kl_steps if isinstance(config, ImplicitRun) else 0
    first = sampler.model_copy(update={"num_steps": sampler.num_steps - last})
    training.network.requires_grad_(False)
    ends, info = run_chains(energy, starts.images, first, training.chain_generator, training.world)
    training.network.requires_grad_(True)
    if not isinstance(config, ImplicitRun) or not last:
        return ends, info.drift_norm, None
    ends, lengths, term = run_last_steps(training, energy, starts._replace(images=ends), sampler, config)
    return ends, (first.num_steps * info.drift_norm + lengths) / sampler.num_steps, term


def potential(
    recipe: EnergyRecipe, parts: EnergyParts, update: int, labels: Tensor | None = None
) -> tuple[Energy, LangevinConfig]:
    """What the chains of an update sample: f at its temperature, or f / T and all that the prior adds, at 1.

    Args:
        labels: int64 [N], of chains of a conditional f.
    """
    sampler, config = recipe.sampler, recipe.learning
    if config.num_steps is not None:
        sampler = sampler.model_copy(update={"num_steps": value_at(config.num_steps, update)})
    energy: Energy = parts.training.network
    if labels is not None:
        energy = Conditional(parts.training.network, labels)
    if recipe.prior is not None:
        terms = [(energy, sampler.temperature)] + ([] if parts.prior is None else [parts.prior])
        energy = add_energies(terms, recipe.prior.tau)
        sampler = sampler.model_copy(update={"temperature": 1.0})
    return energy if config.langevin_clip is None else ClippedEnergy(energy, config.langevin_clip), sampler


def run_chains(
    energy: Energy, starts: Tensor, sampler: LangevinConfig, generator: torch.Generator, world: World
) -> tuple[Tensor, ChainInfo]:
    """All chains [N, C, H, W], moved by the processes of `world`, each its share."""
    count, share = len(starts), world.share(len(starts))
    noise = NoiseOfShare(SeededNoise(generator), count, world)
    ends, info = run_langevin(rows_of(energy, share), starts[share], sampler, randn_like=noise)
    return world.join(ends, count), ChainInfo(*(world.join(each, count) for each in info))


def descend(
    training: EnergyTraining,
    positives: Fresh,
    negatives: Fresh,
    unit: float,
    config: Learning,
    more: Tensor | None = None,
) -> tuple[float, float]:
    """One step of the optimizer down the regime's objective; returns mean f of positives and of negatives before it.

    Args:
        positives: this process's share; `negatives` are all of them.
        unit: what the energies are divided by.
        more: another term, this process's part of it.
    """
    count, world = len(negatives.images), training.world
    share = world.share(count)
    both = torch.cat([positives.images, negatives.images[share]]).contiguous(memory_format=torch.channels_last)
    labels = []
    if positives.labels is not None and negatives.labels is not None:
        labels = [torch.cat([positives.labels, negatives.labels[share]])]
    with autocast(training.device, config.update_precision):
        energies = training.network(both, *labels).float()
        positive, negative = energies.chunk(2)
        loss = objective(positive, negative, config, unit, count, world)
        if isinstance(config, ImplicitRun) and config.label_weight and positives.labels is not None:
            classes, temperature = classes_of(training.network), config.label_temperature
            told = label_loss(training.network, positives.images, positives.labels, classes, temperature, count)
            loss = loss + config.label_weight * told
    training.optimizer.zero_grad(set_to_none=True)
    (loss if more is None else loss + more).backward()
    world.sum_gradients(training.network.parameters())
    clip_each(training.network.parameters(), config.gradient_clip)
    clip_to_spread(training.optimizer, config.spread_clip)
    training.optimizer.step()
    training.average.update(training.network)
    sums = torch.stack([positive.detach().sum(), negative.detach().sum()])
    means = (world.sum(sums) / count).tolist()
    return means[0], means[1]
