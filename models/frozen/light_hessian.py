"""Hessian-vector products of the light network with smooth activations, without autograd.

Pearlmutter (1994): differentiate forward and backward pass along v. With R{} that derivative, layers
z_l = W_l a_(l-1) + b_l, a_l = s(z_l), and d_l = dU/dz_l:

    R{z_l} = W_l R{a_(l-1)},  R{a_l} = s'(z_l) R{z_l},  R{a_0} = v
    R{d_l} = s''(z_l) R{z_l} W'_(l+1) d_(l+1) + s'(z_l) W'_(l+1) R{d_(l+1)}
    H v = W'_1 R{d_1}

That is two forward and two backward passes: twice a gradient's arithmetic.
"""

import torch
from torch import Tensor, nn

from models.frozen.convolution import cast, freeze_convolution
from models.networks.energy import LightEnergy, SmoothLeakyReLU


class FrozenLightHessian:
    """(x, v), both [B, C, S, S] -> H(x) v in v's dtype, with the weights that the network has now.

    Convolutions run in `dtype`, activations and their derivatives in float32: a rounded corner is narrower than what
    bfloat16 resolves.
    """

    def __init__(self, energy: LightEnergy, dtype: torch.dtype) -> None:
        *convolutions, head = (layer for layer in energy.layers if isinstance(layer, nn.Conv2d))
        self._activations = [layer for layer in energy.layers if isinstance(layer, SmoothLeakyReLU)]
        self._dtype, side = dtype, energy.image_size
        self._layers, self._linear = [], []
        for convolution in convolutions:
            weight, bias = cast(convolution, dtype)
            stride, padding = convolution.stride[0], int(convolution.padding[0])
            self._layers.append(freeze_convolution(weight, bias, stride, padding, side))
            self._linear.append(freeze_convolution(weight, None, stride, padding, side))
            side //= stride
        self._head = head.weight.detach().float()

    @torch.no_grad()
    def __call__(self, x: Tensor, v: Tensor) -> Tensor:
        state, along = x.to(self._dtype), v.to(self._dtype)
        inputs, records = [], []
        for layer, linear, activation in zip(self._layers, self._linear, self._activations, strict=True):
            inputs.append(along)
            z, rz = layer.forward(state).float(), linear.forward(along).float()
            value, slope, curvature = activation.derivatives(z)
            records.append((slope, curvature.mul_(rz)))
            state, along = value.to(self._dtype), rz.mul_(slope).to(self._dtype)
        grad, along = self._head.expand_as(records[-1][0]), torch.zeros(())
        for number in reversed(range(len(records))):
            slope, bent = records[number]
            along = bent.mul_(grad).add_(slope * along).to(self._dtype)
            if number:
                grad = self._linear[number].backward((slope * grad).to(self._dtype), inputs[number]).float()
            along = self._linear[number].backward(along, inputs[number]).float()
        return along.to(v.dtype)
