"""Networks without parametrizations, for chains that ask the same weights thousands of times."""

import copy

from torch import nn
from torch.nn.utils import parametrize


def is_plain(network: nn.Module) -> bool:
    """Whether every weight is a tensor of its own, none computed from others at each use."""
    return not any(parametrize.is_parametrized(module) for module in network.modules())


def plain_copy(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode that holds each parametrized weight as it is now; `network` is left alone.

    For spectral norm (Miyato et al. 2018) that is the normalised weight by the present singular vectors: no power
    iteration is made, now or when the copy is used.
    """
    plain = copy.deepcopy(network).eval()
    for module in list(plain.modules()):
        if parametrize.is_parametrized(module):
            # PyTorch deletes the weight's property from the class, which a copy shares with its original.
            shared = type(module)
            module.__class__ = type(shared.__name__, shared.__bases__, dict(shared.__dict__))
            assert isinstance(module.parametrizations, nn.ModuleDict)
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name)
    return plain
