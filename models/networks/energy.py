"""Energy networks: image in [-1, 1] -> one scalar f(x) per image, low where images are likely.

`LightEnergy` is the five-convolution network of Hill, Mitchell and Zhu (arXiv 2005.13525). The `SNGANEnergy`
family follows the discriminators of spectral-norm GANs (Miyato et al. 2018) without the spectral norm, as
EBM Life Cycle uses them (arXiv 2205.12243).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import NetworkError


class SmoothLeakyReLU(nn.Module):
    """(1 + l)/2 x + (1 - l)/2 sqrt(x^2 + e^2): leaky ReLU of slope l with its corner rounded over a width e."""

    def __init__(self, slope: float, smoothing: float) -> None:
        super().__init__()
        self.slope, self.smoothing = slope, smoothing

    def forward(self, x: Tensor) -> Tensor:
        rounded = torch.sqrt(x * x + self.smoothing**2)
        return 0.5 * (1.0 + self.slope) * x + 0.5 * (1.0 - self.slope) * rounded

    def derivatives(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The value, and its first and second derivative."""
        mean, half = 0.5 * (1.0 + self.slope), 0.5 * (1.0 - self.slope)
        inverse = torch.rsqrt(x * x + self.smoothing**2)
        share = x * inverse
        value = mean * x + half * (x * share + self.smoothing**2 * inverse)
        return value, mean + half * share, half * self.smoothing**2 * inverse.pow(3)


def make_activation(name: str, slope: float, smoothing: float) -> nn.Module:
    """`leaky` (slope 0 is ReLU), `smooth_leaky` or `silu`."""
    if name == "leaky":
        return nn.LeakyReLU(slope)
    if name == "smooth_leaky":
        return SmoothLeakyReLU(slope, smoothing)
    if name == "silu":
        return nn.SiLU()
    raise NetworkError(f"unknown activation {name!r}; known: leaky, silu, smooth_leaky")


class LightEnergy(nn.Module):
    """3x3 convolution, stride-2 4x4 convolutions down to 4x4 pixels, 4x4 head: [B, C, S, S] -> [B].

    With width 32 on 32x32 colour images: 0.69 M parameters, 26 M multiply-adds.

    Args:
        image_size: side of the square image, a power of two and at least 8.
    """

    def __init__(
        self,
        channels: int = 3,
        image_size: int = 32,
        width: int = 32,
        activation: str = "leaky",
        slope: float = 0.05,
        smoothing: float = 0.01,
    ) -> None:
        super().__init__()
        if image_size < 8 or image_size & (image_size - 1):
            raise ValueError(f"image_size must be a power of two, at least 8; got {image_size}")
        self.image_size = image_size
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1), make_activation(activation, slope, smoothing)]
        while image_size > 4:
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1), make_activation(activation, slope, smoothing)]
            width, image_size = 2 * width, image_size // 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        energy: Tensor = self.layers(x)
        return energy.flatten(1).squeeze(1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 shortcut; `first` omits the leading activation, `down` halves the side."""

    def __init__(self, inputs: int, outputs: int, down: bool, first: bool, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.down, self.activation = first, down, activation
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs or down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv2(self.activation(self.conv1(x if self.first else self.activation(x))))
        # A 1x1 convolution commutes with average pooling; pooling first is four times cheaper.
        if self.down:
            hidden, x = functional.avg_pool2d(hidden, 2), functional.avg_pool2d(x, 2)
        out: Tensor = hidden + self.shortcut(x)
        return out


class SNGANEnergy(nn.Module):
    """Residual blocks, global average pooling, one linear map without bias: [B, C, S, S] -> [B].

    Args:
        blocks: (output channels, halve the side) of each residual block.
    """

    def __init__(
        self,
        channels: int,
        blocks: list[tuple[int, bool]],
        activation: str = "leaky",
        slope: float = 0.0,
        smoothing: float = 0.01,
    ) -> None:
        super().__init__()
        layers, inputs = [], channels
        for index, (outputs, down) in enumerate(blocks):
            act = make_activation(activation, slope, smoothing)
            layers.append(ResidualBlock(inputs, outputs, down, first=index == 0, activation=act))
            inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.activation = make_activation(activation, slope, smoothing)
        self.head = nn.Linear(inputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        features = self.activation(self.blocks(x)).mean(dim=(2, 3))
        energy: Tensor = self.head(features)
        return energy.squeeze(1)


class SNGANEnergy32(SNGANEnergy):
    """Four blocks of `width` channels, the first two halving: 4.2 M parameters at width 256 (the paper's)."""

    def __init__(self, channels: int = 3, width: int = 256, **activation: Any) -> None:
        blocks = [(width, True), (width, True), (width, False), (width, False)]
        super().__init__(channels, blocks, **activation)


class SNGANEnergy64(SNGANEnergy):
    """Five halving blocks from width/16 to `width` channels: 19.5 M parameters at width 1024 (the paper's)."""

    def __init__(self, channels: int = 3, width: int = 1024, **activation: Any) -> None:
        blocks = [(width // divisor, True) for divisor in (16, 8, 4, 2, 1)]
        super().__init__(channels, blocks, **activation)


class SNGANEnergy128(SNGANEnergy):
    """The 64-pixel network and one more block of `width` channels: 38.4 M parameters at width 1024 (the paper's)."""

    def __init__(self, channels: int = 3, width: int = 1024, **activation: Any) -> None:
        blocks = [(width // divisor, True) for divisor in (16, 8, 4, 2, 1)] + [(width, False)]
        super().__init__(channels, blocks, **activation)
