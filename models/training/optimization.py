"""Small steps that every optimizer here takes."""

from collections.abc import Iterable

import torch
from torch import nn


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of all parameters, from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def clip_to_spread(optimizer: torch.optim.Adam, limits: tuple[float, float] | None) -> None:
    """Clamp each element of each gradient to +-(k sqrt(v) + floor); None leaves all of them.

    v is Adam's running mean of the element's square before this step, unbiased, and 0 at the first. This is how IGEBM's
    code (arXiv 1903.08689) keeps one bad batch of chains from undoing many good ones.
    """
    if limits is None:
        return
    spreads, floor = limits
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = optimizer.state.get(parameter)
            if not state:
                parameter.grad.clamp_(-floor, floor)
                continue
            squares = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
            limit = spreads * squares.sqrt() + floor
            torch.clamp(parameter.grad, -limit, limit, out=parameter.grad)


def clip_each(parameters: Iterable[nn.Parameter], longest: float | None) -> None:
    """Shorten each tensor's gradient to `longest` (L2); None leaves all of them."""
    if longest is not None:
        for parameter in parameters:
            nn.utils.clip_grad_norm_(parameter, longest)
