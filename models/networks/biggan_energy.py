"""The discriminator of BigGAN-deep as an energy for photographs, as EBM Life Cycle uses it at 224 pixels.

Blocks and their order are those of the 256-pixel discriminator of Brock, Donahue and Simonyan (2019, "Large scale GAN
training for high fidelity natural image synthesis", appendix B), without its class embedding and with average pooling
at the end, as in EBM Life Cycle (arXiv 2205.12243).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm as normalise_spectrum

from models.networks.energy import make_activation

STAGES = (2, 4, 8, 8, 16, 16)
"""Channels of each stage, in multiples of the width; a stage halves the side."""
ATTENTION_AFTER = 2
"""Stages before the self-attention: at 56x56 pixels of 224."""


class Bottleneck(nn.Module):
    """1x1, 3x3, 3x3 and 1x1 convolutions, each after an activation; inside, a quarter of the incoming channels.

    The shortcut keeps the channels that there are and appends new ones by a 1x1 convolution; `down` halves the side,
    rounding up: of 7x7 pixels none is dropped.
    """

    def __init__(self, inputs: int, outputs: int, down: bool, activation: nn.Module, spectral_norm: bool) -> None:
        super().__init__()
        inside = inputs // 4
        self.down, self.activation = down, activation
        self.narrow = _convolution(inputs, inside, 1, spectral_norm)
        self.conv1 = _convolution(inside, inside, 3, spectral_norm)
        self.conv2 = _convolution(inside, inside, 3, spectral_norm)
        self.widen = _convolution(inside, outputs, 1, spectral_norm)
        self.append = _convolution(inputs, outputs - inputs, 1, spectral_norm) if outputs > inputs else None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(self.activation(self.narrow(self.activation(x))))
        hidden = self.activation(self.conv2(self.activation(hidden)))
        if self.down:
            hidden = functional.avg_pool2d(hidden, 2, ceil_mode=True)
            x = functional.avg_pool2d(x, 2, ceil_mode=True)
        past = x if self.append is None else torch.cat([x, self.append(x)], dim=1)
        out: Tensor = past + self.widen(hidden)
        return out


class SelfAttention(nn.Module):
    """Each pixel looks at all others, at half the resolution (Zhang et al. 2019, "Self-attention GANs").

    x + gain * attention(x), [B, C, S, S] both; the gain is learned, from 0.
    """

    def __init__(self, channels: int, spectral_norm: bool) -> None:
        super().__init__()
        self.query = _convolution(channels, channels // 8, 1, spectral_norm, bias=False)
        self.key = _convolution(channels, channels // 8, 1, spectral_norm, bias=False)
        self.value = _convolution(channels, channels // 2, 1, spectral_norm, bias=False)
        self.out = _convolution(channels // 2, channels, 1, spectral_norm, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)
        key = functional.max_pool2d(self.key(x), 2, ceil_mode=True).flatten(2)
        value = functional.max_pool2d(self.value(x), 2, ceil_mode=True).flatten(2)
        # Written out, because the fused kernels have no second derivative: warm starts and exact attacks take it.
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=2)
        seen = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        out: Tensor = x + self.gain * self.out(seen)
        return out


class BigGANEnergy(nn.Module):
    """A stem, six stages of two `Bottleneck`s, average pooling, one linear map without bias: [B, C, S, S] -> [B].

    With width 48 on 224x224 colour images: 4.3 M parameters, 2.0 G multiply-adds.

    Args:
        width: channels of the stem, a multiple of 4; 48 is the paper's.
        spectral_norm: divide each weight by its largest singular value, estimated by one power iteration a training
            pass (Miyato et al. 2018); in evaluation mode the estimate stands still.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 48,
        spectral_norm: bool = True,
        activation: str = "leaky",
        slope: float = 0.0,
        smoothing: float = 0.01,
    ) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ValueError(f"width must be a multiple of 4, got {width}")
        layers: list[nn.Module] = [_convolution(channels, width, 3, spectral_norm)]
        inputs = width
        for stage, multiple in enumerate(STAGES):
            if stage == ATTENTION_AFTER:
                layers.append(SelfAttention(inputs, spectral_norm))
            for down in (True, False):
                act = make_activation(activation, slope, smoothing)
                layers.append(Bottleneck(inputs, multiple * width, down, act, spectral_norm))
                inputs = multiple * width
        self.layers = nn.Sequential(*layers, make_activation(activation, slope, smoothing))
        self.head = _normalised(nn.Linear(inputs, 1, bias=False), spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        energy: Tensor = self.head(self.layers(x).mean(dim=(2, 3)))
        return energy.squeeze(1)


def _convolution(inputs: int, outputs: int, kernel: int, spectral_norm: bool, bias: bool = True) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, bias=bias)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return _normalised(convolution, spectral_norm)


def _normalised(layer: nn.Conv2d | nn.Linear, spectral_norm: bool) -> nn.Module:
    """Orthogonal at the start (Saxe et al. 2014), as BigGAN's."""
    nn.init.orthogonal_(layer.weight)
    return normalise_spectrum(layer) if spectral_norm else layer
