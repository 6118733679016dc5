"""Where long chains start, as functions of a stream's name alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.streams import Stream

BATCH = 250


def noise_start(shape: tuple[int, ...], stream: Stream, device: torch.device) -> Tensor:
    """Standard normal states of `shape` [N, C, H, W]."""
    return stream.normal(shape).to(device)


def uniform_start(shape: tuple[int, ...], stream: Stream, device: torch.device) -> Tensor:
    """States uniform on [-1, 1] in each pixel."""
    return (stream.uniform(shape) * 2.0 - 1.0).to(device)


@torch.no_grad()
def generated_start(
    generator: Callable[[Tensor], Tensor], latent_size: int, count: int, stream: Stream, device: torch.device
) -> Tensor:
    """`count` images of a generator [B, Z] -> [B, C, H, W] in evaluation mode, from standard normal latents."""
    latents = stream.normal((count, latent_size)).to(device)
    return torch.cat([generator(batch) for batch in latents.split(BATCH)])
