"""The Inception-v3 that the Fréchet Inception distance is defined with: TensorFlow's graph of 2015-12-05, up to pool3.

It is not the Inception-v3 of other libraries: average pooling leaves the padding out of its counts, the last block
pools with the maximum instead of the average, images are resized as TensorFlow 1 does, and pixels become
(x - 128) / 128. Parameters bear the names of pytorch-fid's file `pt_inception-2015-12-05-6726825d.pth`.

Architecture: Szegedy et al. 2015, arXiv 1512.00567; its use as a metric: Heusel et al. 2017, arXiv 1706.08500.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 299

Pool = Callable[[Tensor], Tensor]
_average: Pool = partial(functional.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_maximum: Pool = partial(functional.max_pool2d, kernel_size=3, stride=1, padding=1)
_down: Pool = partial(functional.max_pool2d, kernel_size=3, stride=2)


class Step(NamedTuple):
    """One convolution of a chain; with stride 1 it keeps the size, with stride 2 it is not padded."""

    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


class Chain(NamedTuple):
    """Convolutions one after the other, named NAME_1, NAME_2, ... or, when there is one, NAME.

    `fork` are two more, both behind the last one, whose results are concatenated.
    """

    name: str
    steps: tuple[Step, ...]
    fork: tuple[Step, ...] = ()


class Convolution(nn.Module):
    """Convolution without bias, batch normalisation, ReLU: [B, I, H, W] to [B, O, H', W']."""

    def __init__(self, inputs: int, step: Step, padding: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, step.outputs, step.kernel, step.stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(step.outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Chains and a pooling side by side, concatenated in that order.

    Args:
        pooled: channels of the convolution behind the pooling; None for none.
    """

    def __init__(self, inputs: int, chains: Sequence[Chain], pool: Pool, pooled: int | None = None) -> None:
        super().__init__()
        self._chains = [self._add(inputs, chain) for chain in chains]
        self._pool = pool
        self.branch_pool = nn.Identity() if pooled is None else Convolution(inputs, Step(pooled), (0, 0))

    def forward(self, x: Tensor) -> Tensor:
        results = []
        for steps, fork in self._chains:
            branch = x
            for name in steps:
                branch = self.get_submodule(name)(branch)
            results += [self.get_submodule(name)(branch) for name in fork] or [branch]
        return torch.cat([*results, self.branch_pool(self._pool(x))], 1)

    def _add(self, inputs: int, chain: Chain) -> tuple[list[str], list[str]]:
        """Register the chain's convolutions; returns their names, those of the fork apart."""
        count = len(chain.steps)
        names = [f"{chain.name}_{n}" for n in range(1, count + 1)] if count + len(chain.fork) > 1 else [chain.name]
        for name, step in zip(names, chain.steps, strict=True):
            self.add_module(name, _same(inputs, step))
            inputs = step.outputs
        forked = [f"{chain.name}_{count + 1}{letter}" for letter in "ab"[: len(chain.fork)]]
        for name, step in zip(forked, chain.fork, strict=True):
            self.add_module(name, _same(inputs, step))
        return names, forked


class Inception(nn.Module):
    """Pixels [B, 3, H, W] in [0, 255], of any size, to pool3 features [B, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, Step(32, (3, 3), 2), (0, 0))
        self.Conv2d_2a_3x3 = Convolution(32, Step(32, (3, 3)), (0, 0))
        self.Conv2d_2b_3x3 = Convolution(32, Step(64, (3, 3)), (1, 1))
        self.Conv2d_3b_1x1 = Convolution(64, Step(80), (0, 0))
        self.Conv2d_4a_3x3 = Convolution(80, Step(192, (3, 3)), (0, 0))
        self.Mixed_5b = _mixed_5(192, pooled=32)
        self.Mixed_5c = _mixed_5(256, pooled=64)
        self.Mixed_5d = _mixed_5(288, pooled=64)
        self.Mixed_6a = _mixed_6a()
        self.Mixed_6b = _mixed_6(128)
        self.Mixed_6c = _mixed_6(160)
        self.Mixed_6d = _mixed_6(160)
        self.Mixed_6e = _mixed_6(192)
        self.Mixed_7a = _mixed_7a()
        self.Mixed_7b = _mixed_7(1280, _average)
        self.Mixed_7c = _mixed_7(2048, _maximum)

    def forward(self, pixels: Tensor) -> Tensor:
        x = (resize_tf1(pixels, SIDE) - 128) / 128
        x = _down(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = _down(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        features: Tensor = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return features.mean(dim=(2, 3))


def resize_tf1(x: Tensor, side: int) -> Tensor:
    """[B, C, H, W] to [B, C, side, side] as TensorFlow 1's ResizeBilinear.

    Result i lies at i * size / side of the input, without the half-pixel shift of PyTorch's `interpolate`; behind the
    last pixel that one repeats.
    """
    for dim in (3, 2):
        size = x.shape[dim]
        position = torch.arange(side, dtype=x.dtype, device=x.device) * (size / side)
        low = position.long()
        weight = (position - low).unflatten(0, (-1, *[1] * (3 - dim)))
        x = torch.lerp(x.index_select(dim, low), x.index_select(dim, (low + 1).clamp(max=size - 1)), weight)
    return x


def _same(inputs: int, step: Step) -> Convolution:
    height, width = step.kernel
    return Convolution(inputs, step, (height // 2, width // 2) if step.stride == 1 else (0, 0))


def _mixed_5(inputs: int, pooled: int) -> Mixed:
    chains = (
        Chain("branch1x1", (Step(64),)),
        Chain("branch5x5", (Step(48), Step(64, (5, 5)))),
        Chain("branch3x3dbl", (Step(64), Step(96, (3, 3)), Step(96, (3, 3)))),
    )
    return Mixed(inputs, chains, _average, pooled)


def _mixed_6a() -> Mixed:
    chains = (
        Chain("branch3x3", (Step(384, (3, 3), 2),)),
        Chain("branch3x3dbl", (Step(64), Step(96, (3, 3)), Step(96, (3, 3), 2))),
    )
    return Mixed(288, chains, _down)


def _mixed_6(inner: int) -> Mixed:
    wide, tall = (1, 7), (7, 1)
    there_and_back = (Step(inner, tall), Step(inner, wide), Step(inner, tall), Step(192, wide))
    chains = (
        Chain("branch1x1", (Step(192),)),
        Chain("branch7x7", (Step(inner), Step(inner, wide), Step(192, tall))),
        Chain("branch7x7dbl", (Step(inner), *there_and_back)),
    )
    return Mixed(768, chains, _average, 192)


def _mixed_7a() -> Mixed:
    chains = (
        Chain("branch3x3", (Step(192), Step(320, (3, 3), 2))),
        Chain("branch7x7x3", (Step(192), Step(192, (1, 7)), Step(192, (7, 1)), Step(192, (3, 3), 2))),
    )
    return Mixed(768, chains, _down)


def _mixed_7(inputs: int, pool: Pool) -> Mixed:
    fork = (Step(384, (1, 3)), Step(384, (3, 1)))
    chains = (
        Chain("branch1x1", (Step(320),)),
        Chain("branch3x3", (Step(384),), fork),
        Chain("branch3x3dbl", (Step(448), Step(384, (3, 3))), fork),
    )
    return Mixed(inputs, chains, pool, 192)
