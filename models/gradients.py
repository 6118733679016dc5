"""The energy and its input gradient, as chains need them: by autograd, or faster for weights that stand still.

A chain asks for nothing but dU/dx, thousands of times with the same weights. For a stack of convolutions and leaky
ReLUs that is written out by hand: forward, then back through each convolution, with the mask of each activation taken
from the sign of its result. Weights are cast once, and on a CPU packed once in oneDNN's own layout: what PyTorch does
anew at every call, and what costs as much as the arithmetic when few chains run. Other networks go through autograd,
on weights that were cast once.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.networks.energy import LightEnergy
from models.precision import DTYPES, Precision, autocast

Energy = Callable[[Tensor], Tensor]
"""[B, ...] -> [B]: one scalar a chain."""
Gradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""x [B, ...] -> (U(x) [B] in float32, dU/dx in x's dtype), both without a graph."""

ATEN, ONEDNN = torch.ops.aten, torch.ops.mkldnn
PACKING_BATCH = 8
"""The batch that oneDNN chooses a weight layout for; it serves every other one as well."""


def energy_gradient(energy: Energy, x: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """U(x) [B] in float32 and dU/dx [B, ...] in x's dtype, both without a graph."""
    with torch.enable_grad():  # undoes a caller's no_grad; nothing undoes inference_mode
        x = x.detach().requires_grad_(True)
        with autocast(x.device, precision):
            u = energy(x)
        (grad,) = torch.autograd.grad(u.float().sum(), x)
    return u.detach().float(), grad


def gradient_of(energy: Energy, precision: Precision) -> Gradient:
    """What a run of many steps asks: a network is frozen first, any other function goes through autograd."""
    if isinstance(energy, nn.Module):
        return freeze(energy, precision)
    return partial(energy_gradient, energy, precision=precision)


def freeze(energy: nn.Module, precision: Precision) -> Gradient:
    """The gradient of the energy as it is now; whether later changes of its weights are seen is left open."""
    if isinstance(energy, LightEnergy) and isinstance(energy.layers[1], nn.LeakyReLU):
        return FrozenConvolutions(energy, precision)
    return FrozenAutograd(energy, precision)


class FrozenAutograd:
    """Any network, with its weights in the given precision."""

    def __init__(self, energy: nn.Module, precision: Precision) -> None:
        self._dtype = DTYPES[precision]
        self._energy = energy
        if any(each.dtype != self._dtype or each.requires_grad for each in energy.parameters()):
            self._energy = copy.deepcopy(energy).requires_grad_(False).to(self._dtype)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():  # undoes a caller's no_grad; nothing undoes inference_mode
            inputs = x.detach().to(self._dtype).requires_grad_(True)
            u = self._energy(inputs).float()
            (grad,) = torch.autograd.grad(u.sum(), inputs)
        return u.detach(), grad.to(x.dtype)


class FrozenConvolutions:
    """Convolutions with a leaky ReLU after each, and a last one that leaves a single number."""

    def __init__(self, energy: LightEnergy, precision: Precision) -> None:
        self._dtype = DTYPES[precision]
        convolutions = [layer for layer in energy.layers if isinstance(layer, nn.Conv2d)]
        slopes = [layer.negative_slope for layer in energy.layers if isinstance(layer, nn.LeakyReLU)]
        kind = _PackedLayer if convolutions[0].weight.device.type == "cpu" else _Layer
        self._layers: list[_Layer] = []
        side = energy.image_size
        for convolution, slope in zip(convolutions, slopes, strict=False):
            self._layers.append(kind(convolution, slope, self._dtype, side))
            side //= convolution.stride[0]
        self._weight, self._bias = _cast(convolutions[-1], self._dtype)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        states = [x.to(self._dtype, memory_format=torch.channels_last)]
        for layer in self._layers:
            states.append(layer.forward(states[-1]))
        u = torch.conv2d(states[-1], self._weight, self._bias).flatten().float()
        grad = self._weight.expand_as(states[-1])
        for number, layer in reversed(list(enumerate(self._layers))):
            masked = ATEN.leaky_relu_backward(grad, states[number + 1], layer.slope, True)
            grad = layer.backward(masked, states[number])
        return u, grad.to(x.dtype)


class _Layer:
    """A convolution and its leaky ReLU, in PyTorch's public operations, for any device."""

    def __init__(self, convolution: nn.Conv2d, slope: float, dtype: torch.dtype, side: int) -> None:
        self.slope = slope
        self.weight, self.bias = _cast(convolution, dtype)
        self.stride, self.padding = convolution.stride, convolution.padding

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu_(torch.conv2d(x, self.weight, self.bias, self.stride, self.padding), self.slope)

    def backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """From the gradient before the activation to that of the input `x`, whose values do not matter."""
        settings = (None, self.stride, self.padding, (1, 1), False, (0, 0), 1, (True, False, False))
        result: Tensor = ATEN.convolution_backward(grad, x, self.weight, *settings)[0]
        return result


class _PackedLayer(_Layer):
    """The same through the operations that torch.compile uses on CPUs: weights packed once, activation fused."""

    def __init__(self, convolution: nn.Conv2d, slope: float, dtype: torch.dtype, side: int) -> None:
        super().__init__(convolution, slope, dtype, side)
        outputs, inputs = convolution.weight.shape[:2]
        after = side // convolution.stride[0]
        plain = convolution.weight.detach().to(dtype)
        settings: tuple[Any, ...] = (self.stride, (1, 1), 1)
        self._packed = ATEN.mkldnn_reorder_conv2d_weight(
            plain.to_mkldnn(), self.padding, *settings, (PACKING_BATCH, inputs, side, side)
        )
        self._transposed = ONEDNN._reorder_convolution_transpose_weight(
            plain, self.padding, (0, 0), *settings, (PACKING_BATCH, outputs, after, after)
        )
        self._settings = settings

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = ONEDNN._convolution_pointwise(
            x, self._packed, self.bias, self.padding, *self._settings, "leaky_relu", [self.slope], ""
        )
        return result

    def backward(self, grad: Tensor, x: Tensor) -> Tensor:
        result: Tensor = ONEDNN._convolution_transpose_pointwise(
            grad, self._transposed, None, self.padding, (0, 0), *self._settings, "none", [], ""
        )
        return result


def _cast(convolution: nn.Conv2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    weight, bias = convolution.weight.detach(), convolution.bias
    assert bias is not None
    return weight.to(dtype, memory_format=torch.channels_last), bias.detach().to(dtype)
