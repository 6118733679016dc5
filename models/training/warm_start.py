"""Warm start by denoising score matching, so that learning by chains begins from a useful gradient field.

Mid-run learning from random weights spends most of a small budget before its chains move sensibly. The same
network, trained first to point from noisy images to clean ones (Vincent 2011, "A connection between score matching
and denoising autoencoders"), starts there. It is one energy for all noise levels, which mid-run learning then corrects.
"""

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.config import Frozen
from models.console import progress_bar
from models.errors import TrainingDiverged
from models.langevin import LangevinConfig
from models.training.distributed import ALONE, World
from models.training.energy_state import EnergyTraining
from models.training.optimization import set_learning_rate
from models.training.run import TrainingRun


class WarmStart(Frozen):
    """Denoising score matching; `min_noise` and `max_noise` are standard deviations in [-1, 1] pixel units."""

    updates: int = Field(ge=0)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    min_noise: float = Field(default=0.03, gt=0)
    max_noise: float = Field(default=0.3, gt=0)
    average_decay: float = Field(default=0.999, ge=0, lt=1)
    log_every: int = Field(default=100, ge=1)
    checkpoint_every: int = Field(default=1000, ge=1)

    @model_validator(mode="after")
    def _noise_ascends(self) -> "WarmStart":
        if self.max_noise <= self.min_noise:
            raise ValueError(f"max_noise {self.max_noise} must be above min_noise {self.min_noise}")
        return self


def warm_start_loss(
    network: nn.Module,
    images: Tensor,
    sampler: LangevinConfig,
    config: WarmStart,
    generator: torch.Generator,
    world: World = ALONE,
) -> Tensor:
    """mean |s * grad f(x + s z) / T - z|^2 with log s ~ U(log min_noise, log max_noise); 1 for a flat energy.

    Args:
        images: this process's share of `config.batch_size` images, whose losses add up to the mean; alone, any number.
    """
    count = len(images) if world.size == 1 else config.batch_size
    span = math.log(config.max_noise / config.min_noise)
    uniform = torch.rand(count, 1, 1, 1, generator=generator, device=images.device)
    scale = config.min_noise * torch.exp(span * uniform)
    z = torch.randn(count, *images.shape[1:], generator=generator, device=images.device)
    scale, z = scale[world.share(count)], z[world.share(count)]
    noisy = (images + scale * z).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    (grad,) = torch.autograd.grad(network(noisy).sum(), noisy, create_graph=True)
    return (scale * grad / sampler.temperature - z).square().mean() * (len(images) / count)


def warm_start(training: EnergyTraining, sampler: LangevinConfig, config: WarmStart, run: TrainingRun) -> None:
    """Learn to the end of the warm start, from where the training is."""
    batches = training.images(training.data.batches("warm start", config.batch_size), config.batch_size)
    parameters, generator, world = list(training.network.parameters()), training.chain_generator, training.world
    recent: list[Tensor] = []
    with progress_bar("warm start", config.updates, training.update) as progress:
        while training.update < config.updates:
            position = training.update / config.updates
            set_learning_rate(training.optimizer, config.learning_rate * 0.5 * (1 + math.cos(math.pi * position)))
            loss = warm_start_loss(training.network, next(batches), sampler, config, generator, world)
            training.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            world.sum_gradients(parameters)
            _clip_unusual(training, parameters)
            training.optimizer.step()
            training.average.update(training.network)
            training.update += 1
            recent.append(loss.detach())
            progress.advance(progress.task_ids[0])
            if training.update % config.log_every == 0 or training.update == config.updates:
                run.log(training.update, {"warm_start_loss": float(world.sum(torch.stack(recent)).mean())})
                recent.clear()
            if training.update % config.checkpoint_every == 0 or training.update == config.updates:
                training.check_identical()
                run.save(training.update, training.state_dict())


def _clip_unusual(training: EnergyTraining, parameters: list[nn.Parameter]) -> None:
    """No gradient longer than twice the usual one: a single bad batch can undo minutes of learning."""
    norm = float(nn.utils.clip_grad_norm_(parameters, 2 * training.usual_norm))
    if not math.isfinite(norm):
        raise TrainingDiverged(f"warm start: the gradient's norm is {norm} at update {training.update}")
    if math.isinf(training.usual_norm):
        training.usual_norm = norm
    training.usual_norm = 0.99 * training.usual_norm + 0.01 * min(norm, 2 * training.usual_norm)
