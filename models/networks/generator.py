"""Generators: latent z ~ N(0, I) -> image in [-1, 1], where chains of short-run and mid-run learning start.

The residual generators of spectral-norm GANs (Miyato et al. 2018) with bilinear upsampling, as EBM Life Cycle uses them
(arXiv 2205.12243). Sizes, initialisation and batch norm's epsilon (1e-5) are PyTorch Mimicry's (Lee and Town 2020).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

FIRST_SIDE = 4
"""Pixels a side of the first feature map."""


class UpBlock(nn.Module):
    """Two 3x3 convolutions after (batch norm,) ReLU, beside a 1x1 shortcut: [B, I, S, S] -> [B, O, 2 S, 2 S]."""

    def __init__(self, inputs: int, outputs: int, batch_norm: bool) -> None:
        super().__init__()
        self.norm1 = _norm(inputs, batch_norm)
        self.conv1 = _xavier(nn.Conv2d(inputs, outputs, 3, 1, 1), math.sqrt(2.0))
        self.norm2 = _norm(outputs, batch_norm)
        self.conv2 = _xavier(nn.Conv2d(outputs, outputs, 3, 1, 1), math.sqrt(2.0))
        self.shortcut = _xavier(nn.Conv2d(inputs, outputs, 1), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(_double(functional.relu(self.norm1(x))))
        hidden = self.conv2(functional.relu(self.norm2(hidden)))
        # A 1x1 convolution commutes with interpolation, whose weights sum to 1; convolving first is four times cheaper.
        out: Tensor = hidden + _double(self.shortcut(x))
        return out


class SNGANGenerator(nn.Module):
    """A linear map to 4x4 pixels, one `UpBlock` per doubling, a 3x3 convolution and tanh: z [B, Z] -> [B, C, S, S].

    Args:
        widths: channels at 4x4 pixels and after each doubling: two of them make 8-pixel images, four 32-pixel ones.
        latent_size: Z.
        batch_norm: without it an image is a function of its latent alone, in training mode as well.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (256, 256, 256, 256),
        latent_size: int = 128,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1 or latent_size < 1:
            raise ValueError(
                f"widths must hold at least two counts of channels, and latent_size be at least 1; "
                f"got {list(widths)} and {latent_size}"
            )
        self.latent_size, self.first_width = latent_size, widths[0]
        self.image_size = FIRST_SIDE * 2 ** (len(widths) - 1)
        self.project = _xavier(nn.Linear(latent_size, widths[0] * FIRST_SIDE**2), 1.0)
        self.blocks = nn.Sequential(*(UpBlock(inputs, outputs, batch_norm) for inputs, outputs in pairwise(widths)))
        self.norm = _norm(widths[-1], batch_norm)
        self.to_pixels = _xavier(nn.Conv2d(widths[-1], channels, 3, 1, 1), 1.0)

    def forward(self, z: Tensor) -> Tensor:
        features = self.blocks(self.project(z).view(-1, self.first_width, FIRST_SIDE, FIRST_SIDE))
        return torch.tanh(self.to_pixels(functional.relu(self.norm(features))))

    def sample_latents(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """z ~ N(0, I), [count, Z] on `device`, where `generator` (None: PyTorch's own) must live."""
        return torch.randn(count, self.latent_size, generator=generator, device=device)


class SNGANGenerator32(SNGANGenerator):
    """Three blocks of `width` channels: 4.3 M parameters at width 256 (the paper's)."""

    def __init__(self, channels: int = 3, width: int = 256, latent_size: int = 128, batch_norm: bool = True) -> None:
        super().__init__(channels, [width] * 4, latent_size, batch_norm)


class SNGANGenerator64(SNGANGenerator):
    """Four blocks from `width` to width/16 channels: 12.2 M parameters at width 1024 (the paper's)."""

    def __init__(self, channels: int = 3, width: int = 1024, latent_size: int = 128, batch_norm: bool = True) -> None:
        super().__init__(channels, [width // divisor for divisor in (1, 2, 4, 8, 16)], latent_size, batch_norm)


class SNGANGenerator128(SNGANGenerator):
    """The 64-pixel network after one more block of `width` channels: 32.2 M parameters at width 1024 (the paper's)."""

    def __init__(self, channels: int = 3, width: int = 1024, latent_size: int = 128, batch_norm: bool = True) -> None:
        super().__init__(channels, [width // divisor for divisor in (1, 1, 2, 4, 8, 16)], latent_size, batch_norm)


def _norm(channels: int, batch_norm: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()


def _xavier(layer: Layer, gain: float) -> Layer:
    nn.init.xavier_uniform_(layer.weight, gain)
    return layer


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
