"""The light network: convolutions with a leaky ReLU after each, and a last one that leaves a single number."""

import torch
from torch import Tensor, nn

from models.frozen.convolution import ATEN, cast, freeze_convolution
from models.networks.energy import LightEnergy


class FrozenLight:
    """x [B, C, S, S] -> (U [B] in float32, dU/dx in x's dtype), with the weights that the network has now."""

    def __init__(self, energy: LightEnergy, dtype: torch.dtype) -> None:
        *convolutions, head = (layer for layer in energy.layers if isinstance(layer, nn.Conv2d))
        slopes = (layer.negative_slope for layer in energy.layers if isinstance(layer, nn.LeakyReLU))
        self._dtype, side = dtype, energy.image_size
        self._layers = []
        for convolution, slope in zip(convolutions, slopes, strict=True):
            stride, padding = convolution.stride[0], int(convolution.padding[0])
            weight, bias = cast(convolution, dtype)
            self._layers.append((freeze_convolution(weight, bias, stride, padding, side), slope))
            side //= stride
        self._head = head.weight.detach().to(dtype, memory_format=torch.channels_last)
        self._head_row = head.weight.detach().float().permute(0, 2, 3, 1).flatten()
        assert head.bias is not None
        self._head_bias = head.bias.detach().float()

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        states = [x.to(self._dtype)]
        for convolution, slope in self._layers:
            states.append(convolution.forward(states[-1], slope))
        features = states[-1].permute(0, 2, 3, 1).flatten(1).float()
        grad = self._head.expand_as(states[-1])
        for number, (convolution, slope) in reversed(list(enumerate(self._layers))):
            masked = ATEN.leaky_relu_backward(grad, states[number + 1], slope, True)
            grad = convolution.backward(masked, states[number])
        return torch.mv(features, self._head_row) + self._head_bias, grad.to(x.dtype)
