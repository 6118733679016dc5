"""A convolution with fixed weights, forward and back to its input, as fast as the device's library has it.

Weights are cast once, and on a CPU packed once in oneDNN's own layout: what PyTorch does anew at every call, and what
costs as much as the arithmetic when few chains run. Activations are channels-last inside, images are not: an image has
so few channels that noise and updates are faster on planes.
"""

from typing import Any

import torch
from torch import Tensor, nn

ATEN, ONEDNN = torch.ops.aten, torch.ops.mkldnn
PACKING_BATCH = 8
"""The batch that oneDNN chooses a weight layout for; it serves every other one as well."""
FEW_CHANNELS = 4
"""Up to so many channels count as an image."""


class Convolution:
    """In PyTorch's public operations, for any device. Weight [O, I, k, k], square kernel, no dilation, no groups."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> None:
        self.weight = weight.to(memory_format=torch.channels_last)
        self.bias = bias
        self.stride, self.padding = (stride, stride), (padding, padding)

    def forward(self, x: Tensor, slope: float = 1.0) -> Tensor:
        """The convolution, and a leaky ReLU of that slope unless it is 1."""
        out = torch.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        return out if slope == 1.0 else nn.functional.leaky_relu_(out, slope)

    def backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """From the gradient of the result to that of the input `x`, whose values do not matter."""
        settings = (None, self.stride, self.padding, (1, 1), False, (0, 0), 1, (True, False, False))
        result: Tensor = ATEN.convolution_backward(grad, x, self.weight, *settings)[0]
        return result


class PackedConvolution(Convolution):
    """The same on a CPU, through the operations that torch.compile uses there.

    Args:
        side: of the input image, which oneDNN chooses a weight layout for.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, padding: int, side: int) -> None:
        super().__init__(weight, bias, stride, padding)
        self._packed = _pack(weight, self.stride, self.padding, side)
        if stride == 1:
            flipped = weight.flip(2, 3).transpose(0, 1).contiguous()
            self._back_padding = (weight.shape[2] - 1 - padding,) * 2
            self._transposed = _pack(flipped, self.stride, self._back_padding, side)
        else:
            after = (PACKING_BATCH, len(weight), side // stride, side // stride)
            self._transposed = ONEDNN._reorder_convolution_transpose_weight(
                weight, self.padding, (0, 0), self.stride, (1, 1), 1, after
            )

    def forward(self, x: Tensor, slope: float = 1.0) -> Tensor:
        """See `Convolution`."""
        return _convolve(x, self._packed, self.bias, self.stride, self.padding, slope)

    def backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """See `Convolution`."""
        if self.stride == (1, 1):
            return _convolve(grad, self._transposed, None, self.stride, self._back_padding)
        result: Tensor = ONEDNN._convolution_transpose_pointwise(
            grad, self._transposed, None, self.padding, (0, 0), self.stride, (1, 1), 1, "none", [], ""
        )
        return result


class PackedFirstConvolution(PackedConvolution):
    """From an image of few channels, 3x3: the way back to so few is slow for oneDNN, which fills vectors with channels.

    So it convolves rows only, to each of three kernel rows' own share of the gradient, and the shares are added
    shifted by a row: a third of the arithmetic, and vectors three times as full.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, side: int) -> None:
        super().__init__(weight, bias, 1, 1, side)
        outputs, self._channels = weight.shape[:2]
        rows = weight.flip(3).permute(2, 1, 0, 3).reshape(3 * self._channels, outputs, 1, 3).contiguous()
        self._rows = _pack(rows, (1, 1), (0, 1), side)

    def backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """See `Convolution`; in float32 and by planes."""
        shares = _convolve(grad, self._rows, None, (1, 1), (0, 1)).contiguous()
        shares = shares.view(len(x), 3, self._channels, *x.shape[2:])
        total = shares[:, 1].float()
        total[:, :, 1:] += shares[:, 2, :, :-1]
        total[:, :, :-1] += shares[:, 0, :, 1:]
        return total


def freeze_convolution(weight: Tensor, bias: Tensor | None, stride: int, padding: int, side: int) -> Convolution:
    """The fastest form for the weight's device; weight and bias already have the dtype to compute in."""
    if weight.device.type != "cpu":
        return Convolution(weight, bias, stride, padding)
    if weight.shape[1] <= FEW_CHANNELS and (weight.shape[2], stride, padding) == (3, 1, 1):
        return PackedFirstConvolution(weight, bias, side)
    return PackedConvolution(weight, bias, stride, padding, side)


def cast(convolution: nn.Conv2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias as they are now, in `dtype`."""
    assert convolution.bias is not None
    return convolution.weight.detach().to(dtype), convolution.bias.detach().to(dtype)


def _pack(weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], side: int) -> Tensor:
    shape = (PACKING_BATCH, weight.shape[1], side, side)
    packed: Tensor = ATEN.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), padding, stride, (1, 1), 1, shape)
    return packed


def _convolve(
    x: Tensor,
    packed: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    slope: float = 1.0,
) -> Tensor:
    after: tuple[Any, ...] = ("none", [], "") if slope == 1.0 else ("leaky_relu", [slope], "")
    result: Tensor = ONEDNN._convolution_pointwise(x, packed, bias, padding, stride, (1, 1), 1, *after)
    return result
