"""A smooth twin of a piecewise-linear network: the same weights, every corner rounded."""

import copy

from torch import nn

from models.networks.energy import SmoothLeakyReLU


def smooth_twin(network: nn.Module, smoothing: float) -> nn.Module:
    """A copy in which SmoothLeakyReLU of width `smoothing` stands for each (leaky) ReLU; smooth layers are kept.

    The weights are shared with `network`. As smoothing -> 0 the twin's output tends to the network's.
    """
    memo = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    twin = copy.deepcopy(network, memo)
    for parent in list(twin.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU | nn.LeakyReLU):
                slope = child.negative_slope if isinstance(child, nn.LeakyReLU) else 0.0
                setattr(parent, name, SmoothLeakyReLU(slope, smoothing))
    return twin
