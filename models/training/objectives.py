"""What an update descends, from the energies of its positives and of its negatives.

Each function gives a process's part of the loss; the parts of all processes add up to it. `count` is the number of
positives, and of negatives, of all of them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.training.distributed import World
from models.training.sections import ImplicitRun, Learning


def objective(
    positive: Tensor, negative: Tensor, config: Learning, temperature: float, count: int, world: World
) -> Tensor:
    """The loss of the regime, from this process's energies f [b] of either kind."""
    if not isinstance(config, ImplicitRun):
        return linear(positive, negative, count * temperature)
    if config.objective == "linear":
        loss = linear(positive, negative, count)
    elif config.objective == "logsumexp":
        loss = logsumexp(positive, negative, count, world)
    else:
        loss = softplus(positive, negative, count)
    return loss + config.penalty * (positive.square().sum() + negative.square().sum()) / count


def linear(positive: Tensor, negative: Tensor, count: float) -> Tensor:
    """mean f(positives) - mean f(negatives): the likelihood's gradient, where negatives are the model's samples."""
    return (positive.sum() - negative.sum()) / count


def logsumexp(positive: Tensor, negative: Tensor, count: int, world: World) -> Tensor:
    """mean f(positives) + log mean exp(-f(negatives)), in its gradient: the negatives that are likely weigh most.

    The value is another: the weights softmax(-f), over the negatives of all processes, are constants.
    """
    weights = (-world.join(negative.detach(), count)).softmax(0)[world.share(count)]
    return positive.sum() / count - (weights * negative).sum()


def softplus(positive: Tensor, negative: Tensor, count: int) -> Tensor:
    """mean log(1 + exp(f(positive) - f(negative))) over pairs: what is told apart already teaches no more."""
    return functional.softplus(positive - negative).sum() / count


def label_loss(
    network: nn.Module, images: Tensor, labels: Tensor, classes: int, temperature: float, count: int
) -> Tensor:
    """mean -log p(y | x), with p(y | x) the softmax over labels of -f(x, y) / T: `classes` passes of x [b, C, H, W].

    The likelihood of x given y teaches labels by chains alone; this joint model's other factor (JEM, arXiv 1912.03263,
    where T is 1) teaches them directly, and nothing more once wrong labels' energies are some T higher.
    """
    every = torch.arange(classes, device=images.device).repeat(len(images))
    energies = network(images.repeat_interleave(classes, 0), every).float().view(-1, classes)
    return functional.cross_entropy(-energies / temperature, labels, reduction="sum") / count
