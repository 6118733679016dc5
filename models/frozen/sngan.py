"""The residual energies: blocks of two convolutions beside a shortcut, average pooling, and a linear head.

A 3x3 convolution followed by 2x2 average pooling is one 4x4 convolution of stride 2 whose kernel is the 3x3 one summed
over the pooling's four shifts: 16 products a pooled pixel instead of 36.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.frozen.convolution import ATEN, Convolution, cast, freeze_convolution
from models.networks.energy import ResidualBlock, SNGANEnergy

PACKING_SIDE = 64
"""The side that oneDNN chooses weight layouts for; they serve every other one as well."""


@dataclass
class _Record:
    """What a block's way back needs: its input (activated, if it starts so), and its hidden layer after activation."""

    x: Tensor
    hidden: Tensor


class FrozenBlock:
    """A residual block at inputs of a given side."""

    def __init__(self, block: ResidualBlock, slope: float, side: int, dtype: torch.dtype) -> None:
        self.first, self.down, self.slope = block.first, block.down, slope
        after = side // 2 if block.down else side
        self.conv1 = _freeze(block.conv1, 1, side, dtype)
        self.conv2 = _freeze(block.conv2, 2 if block.down else 1, side, dtype)
        self.shortcut = _freeze(block.shortcut, 1, after, dtype) if isinstance(block.shortcut, nn.Conv2d) else None

    def forward(self, x: Tensor) -> tuple[Tensor, _Record]:
        """[B, I, S, S] to [B, O, S, S] or, going down, [B, O, S/2, S/2]."""
        active = x if self.first else functional.leaky_relu(x, self.slope)
        hidden = self.conv1.forward(active, self.slope)
        out = self.conv2.forward(hidden)
        past = functional.avg_pool2d(x, 2) if self.down else x
        return out.add_(past if self.shortcut is None else self.shortcut.forward(past)), _Record(active, hidden)

    def backward(self, grad: Tensor, record: _Record) -> Tensor:
        """From the gradient of the result to that of the input."""
        inner = ATEN.leaky_relu_backward(self.conv2.backward(grad, record.hidden), record.hidden, self.slope, True)
        inner = self.conv1.backward(inner, record.x)
        if not self.first:
            inner = ATEN.leaky_relu_backward(inner, record.x, self.slope, True)
        past = grad if self.shortcut is None else self._back_through_shortcut(grad, record.x)
        if self.down:
            past = functional.interpolate(past, scale_factor=2.0, mode="nearest")
        result: Tensor = inner.add_(past, alpha=0.25 if self.down else 1.0)
        return result

    def _back_through_shortcut(self, grad: Tensor, x: Tensor) -> Tensor:
        assert self.shortcut is not None
        return self.shortcut.backward(grad, x[:, :, ::2, ::2] if self.down else x)


class FrozenSNGAN:
    """x [B, C, S, S] -> (U [B] in float32, dU/dx in x's dtype), with the weights that the network has now.

    It takes images of any side that halves as often as the blocks do.
    """

    def __init__(self, energy: SNGANEnergy, slope: float, dtype: torch.dtype) -> None:
        self._slope, self._dtype = slope, dtype
        self._blocks, side = [], PACKING_SIDE
        for block in energy.blocks:
            assert isinstance(block, ResidualBlock)
            self._blocks.append(FrozenBlock(block, slope, side, dtype))
            side //= 2 if block.down else 1
        self._head = energy.head.weight.detach().flatten()

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state, records = x.to(self._dtype), []
        for block in self._blocks:
            state, record = block.forward(state)
            records.append(record)
        features = functional.leaky_relu(state, self._slope)
        u = features.float().mean(dim=(2, 3)) @ self._head.float()
        grad = (self._head / state[0, 0].numel()).to(self._dtype)[:, None, None].expand_as(state)
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad = ATEN.leaky_relu_backward(grad, features, self._slope, True)
        for block, record in zip(reversed(self._blocks), reversed(records), strict=True):
            grad = block.backward(grad, record)
        return u, grad.to(x.dtype)


def _freeze(convolution: nn.Conv2d, stride: int, side: int, dtype: torch.dtype) -> Convolution:
    """A stride of 2 takes the average pooling behind the convolution into it."""
    weight, bias = cast(convolution, torch.float32)
    if stride == 2:
        weight = functional.avg_pool2d(functional.pad(weight, (1, 1, 1, 1)), 2, stride=1)
    return freeze_convolution(weight.to(dtype), bias.to(dtype), stride, int(convolution.padding[0]), side)
