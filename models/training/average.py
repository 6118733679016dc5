"""Exponential moving average of a network's weights and buffers."""

import copy

import torch
from torch import nn

SINGULAR_VECTORS = ("._u", "._v")
"""What torch.nn.utils.parametrizations.spectral_norm calls its buffers."""


class WeightAverage:
    """average <- d * average + (1 - d) * weights after each update, d = min(decay, (1 + n) / (10 + n)) at update n.

    The ramp keeps early averages from remembering the random initialisation. `network` is the averaged copy, in
    evaluation mode and without gradients; it is what is exported and evaluated. Spectral norm's singular vectors are
    copied: an average of unit vectors is not one, and would scale every weight.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights and buffers of `network`."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        theirs = network.state_dict()
        for key, own in self.network.state_dict().items():
            if own.is_floating_point() and not key.endswith(SINGULAR_VECTORS):
                own.lerp_(theirs[key], 1.0 - decay)
            else:
                own.copy_(theirs[key])
