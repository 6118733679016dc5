"""Small steps that every optimizer here takes."""

from collections.abc import Iterable

import torch
from torch import nn


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of all parameters, from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_each(parameters: Iterable[nn.Parameter], longest: float | None) -> None:
    """Shorten each tensor's gradient to `longest` (L2); None leaves all of them."""
    if longest is not None:
        for parameter in parameters:
            nn.utils.clip_grad_norm_(parameter, longest)
