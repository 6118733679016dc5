"""Adversarial training of a classifier: it learns from images that were attacked as it now stands.

One section tells all the usual methods apart:

| method                                     | start | step | steps | stay_inside | trades_weight |
|--------------------------------------------|-------|------|-------|-------------|---------------|
| N-FGSM (de Jorge et al. 2022)              | 16    | 8    | 1     | false       |               |
| FGSM-RS (Wong, Rice and Kolter 2020)       | 8     | 10   | 1     | true        |               |
| PGD (Madry et al. 2018)                    | 8     | 2    | 10    | true        |               |
| TRADES (Zhang et al. 2019)                 | 0.26  | 2    | 10    | true        | 6             |

Where a purifier stands before the classifier in learning, the attack sees it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from models.config import Frozen
from models.pixels import LEVEL_WIDTH

Classify = Callable[[Tensor], Tensor]


class Adversarial(Frozen):
    """An L-infinity attack within learning; lengths in levels of 1/255."""

    epsilon: float = Field(default=8.0, gt=0)
    start: float = Field(default=16.0, ge=0)
    """The attack starts from uniform noise of this radius."""
    step: float = Field(default=8.0, gt=0)
    steps: int = Field(default=1, ge=1)
    stay_inside: bool = False
    """Whether what is learned from is projected back into the budget, or may leave it as N-FGSM's does."""
    trades_weight: float | None = Field(default=None, gt=0)
    """Weight of KL(clean | attacked) beside the clean loss; None learns the labels of attacked images."""

    def uniform(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The start, to be added to images [B, C, H, W] in [-1, 1]."""
        drawn = torch.rand(images.shape, generator=generator).to(images.device)
        return (2.0 * drawn - 1.0) * (self.start * LEVEL_WIDTH)


def adversarial_loss(
    classify: Classify,
    parameters: list[nn.Parameter],
    images: Tensor,
    labels: Tensor,
    config: Adversarial,
    generator: torch.Generator,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """What is minimised for images [B, C, H, W] in [-1, 1] and their labels [B], and the attacked images.

    Args:
        classify: to logits [B, K] in float32.
        parameters: of the classifier; left out of the attack's backward passes.
        generator: on the CPU.
    """
    start = config.uniform(images, generator)
    if config.trades_weight is None:

        def hurt(attacked: Tensor) -> Tensor:
            return functional.cross_entropy(classify(attacked), labels, reduction="sum")

        with frozen(parameters):
            attacked = attack(hurt, images, start, config)
        return functional.cross_entropy(classify(attacked), labels, label_smoothing=label_smoothing), attacked

    with frozen(parameters):
        with torch.no_grad():
            wanted = classify(images).softmax(1)

        def diverge(attacked: Tensor) -> Tensor:
            return functional.kl_div(classify(attacked).log_softmax(1), wanted, reduction="sum")

        attacked = attack(diverge, images, start, config)
    clean = classify(images)
    divergence = functional.kl_div(classify(attacked).log_softmax(1), clean.softmax(1), reduction="batchmean")
    learned = functional.cross_entropy(clean, labels, label_smoothing=label_smoothing)
    return learned + config.trades_weight * divergence, attacked


def attack(objective: Classify, images: Tensor, start: Tensor, config: Adversarial) -> Tensor:
    """Ascend `objective`, a sum over images, by signs of its gradient from `images + start`; stays in [-1, 1]."""
    epsilon, step = config.epsilon * LEVEL_WIDTH, config.step * LEVEL_WIDTH
    attacked = (images + start).clamp(-1.0, 1.0)
    for _ in range(config.steps):
        attacked = attacked.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(attacked), attacked)
        moved = attacked.detach() + step * gradient.sign()
        if config.stay_inside:
            moved = torch.minimum(torch.maximum(moved, images - epsilon), images + epsilon)
        attacked = moved.clamp(-1.0, 1.0)
    return attacked.detach()


@contextmanager
def frozen(parameters: list[nn.Parameter]) -> Iterator[None]:
    """No gradients of the parameters within: a third of a backward pass less."""
    needed = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, need in zip(parameters, needed, strict=True):
            parameter.requires_grad_(need)


def count_holding(
    classify: Classify,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    generator: torch.Generator,
    batch_size: int = 250,
) -> int:
    """How many images [N, C, H, W] in [-1, 1] keep their label under PGD-10 at `epsilon` levels of 1/255.

    Single-step training is watched by it: it can learn to fool its own attack, and no other (Wong et al. 2020).

    Args:
        classify: without parameters that learn.
    """
    watching = Adversarial(epsilon=epsilon, start=epsilon, step=epsilon / 4, steps=10, stay_inside=True)
    held = 0
    for batch, wanted in zip(images.split(batch_size), labels.split(batch_size), strict=True):

        def hurt(attacked: Tensor, wanted: Tensor = wanted) -> Tensor:
            return functional.cross_entropy(classify(attacked), wanted, reduction="sum")

        attacked = attack(hurt, batch, watching.uniform(batch, generator), watching)
        with torch.no_grad():
            held += int((classify(attacked).argmax(1) == wanted).sum())
    return held
