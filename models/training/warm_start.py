"""Warm start by denoising score matching, so that mid-run learning begins from a useful gradient field.

Mid-run learning from random weights spends most of a small budget before its chains move sensibly. The same
network, trained first to point from noisy images to clean ones (Vincent 2011, "A connection between score matching
and denoising autoencoders"), starts there. It is one energy for all noise levels, which mid-run learning then corrects.
"""

import math

import torch
from torch import Tensor, nn

from models.config import Frozen
from models.langevin import LangevinConfig


class WarmStart(Frozen):
    """Denoising score matching; `min_noise` and `max_noise` are standard deviations in [-1, 1] pixel units."""

    updates: int
    batch_size: int = 64
    learning_rate: float = 5e-4
    min_noise: float = 0.03
    max_noise: float = 0.3
    average_decay: float = 0.999
    log_every: int = 100
    checkpoint_every: int = 1000


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
