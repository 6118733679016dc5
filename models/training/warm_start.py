"""Warm start by denoising score matching, so that mid-run learning begins from a useful gradient field.

Mid-run learning from random weights spends most of a small budget before its chains move sensibly. The same
network, trained first to point from noisy images to clean ones (Vincent 2011, "A connection between score matching
and denoising autoencoders"), starts there. It is one energy for all noise levels, which mid-run learning then corrects.
"""

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.config import Frozen
from models.langevin import LangevinConfig


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
    network: nn.Module, images: Tensor, sampler: LangevinConfig, config: WarmStart, generator: torch.Generator
) -> Tensor:
    """mean |s * grad f(x + s z) / T - z|^2 with log s ~ U(log min_noise, log max_noise); 1 for a flat energy."""
    batch = len(images)
    span = math.log(config.max_noise / config.min_noise)
    uniform = torch.rand(batch, 1, 1, 1, generator=generator, device=images.device)
    scale = config.min_noise * torch.exp(span * uniform)
    z = torch.randn(images.shape, generator=generator, device=images.device)
    noisy = (images + scale * z).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    (grad,) = torch.autograd.grad(network(noisy).sum(), noisy, create_graph=True)
    return (scale * grad / sampler.temperature - z).square().mean()
