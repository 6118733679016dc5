"""Classifiers: normalised image -> logits."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, type[nn.ReLU] | type[nn.SiLU]] = {"relu": nn.ReLU, "silu": nn.SiLU}


def conv_bn(inputs: int, outputs: int, activation: str) -> nn.Sequential:
    """3x3 convolution, batch norm, activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), ACTIVATIONS[activation](inplace=True)
    )


class Stage(nn.Module):
    """3x3 convolution to `outputs` channels, 2x2 max pooling, then a two-convolution residual: half the side."""

    def __init__(self, inputs: int, outputs: int, activation: str) -> None:
        super().__init__()
        self.enter = conv_bn(inputs, outputs, activation)
        self.residual = nn.Sequential(conv_bn(outputs, outputs, activation), conv_bn(outputs, outputs, activation))

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.max_pool2d(self.enter(x), 2)
        out: Tensor = pooled + self.residual(pooled)
        return out


class CompactResNet(nn.Module):
    """A residual network that learns fast: stem, one `Stage` per width, global max pooling, linear head.

    [B, C, H, W] -> logits [B, classes]; the sides must survive one halving per stage. With stem 32 and widths
    (64, 128, 128): 0.91 M parameters, 91 M multiply-adds at 32x32. The shape follows the DAWNBench entries of
    Page (2018), "How to train your ResNet", narrowed; `logit_scale` tempers the head, as there.

    Args:
        activation: `relu`, or `silu`, whose smoothness training on attacked images profits from (Xie et al. 2020,
            "Smooth adversarial training").
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 10,
        stem: int = 32,
        widths: Sequence[int] = (64, 128, 128),
        logit_scale: float = 0.125,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}; known: {', '.join(ACTIVATIONS)}")
        self.stem = conv_bn(channels, stem, activation)
        inputs = [stem, *widths[:-1]]
        self.stages = nn.Sequential(*(Stage(i, o, activation) for i, o in zip(inputs, widths, strict=True)))
        self.head = nn.Linear(widths[-1], classes, bias=False)
        self.logit_scale = logit_scale

    def features(self, x: Tensor) -> Tensor:
        """What the head reads: [B, C, H, W] to [B, last width]."""
        features: Tensor = self.stages(self.stem(x)).amax(dim=(2, 3))
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x)) * self.logit_scale
        return logits
