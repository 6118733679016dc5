"""What an attacker maximises, computed on the replicates' mean logits [B, K]; every loss is positive or growing as the
true label loses."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from attacks_eval.errors import QuestionError

LossName = Literal["ce", "margin", "dlr"]
UNAIMED = -1
"""Instead of a target: away from the true class, to whichever."""


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """The true logit minus the best other one, [B]: negative when the answer is wrong."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return true - others


def attack_loss(name: LossName, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Per-image loss [B]; for an image that has a target (int64 [B], UNAIMED for none), its logit minus the true one.

    ce: cross-entropy. margin: best other logit minus the true one (Carlini and Wagner 2017). dlr: the margin over the
    gap between the best and the third best logit (Croce and Hein 2020), blind to the logits' scale; needs 3 classes.
    """
    if targets is not None and bool((targets != UNAIMED).any()):
        aimed = (logits.gather(1, targets.clamp(min=0)[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)
        return torch.where(targets == UNAIMED, attack_loss(name, logits, labels), aimed)
    if name == "ce":
        return functional.cross_entropy(logits, labels, reduction="none")
    if name == "margin":
        return -margins(logits, labels)
    if logits.shape[1] < 3:
        raise QuestionError(f"the dlr loss needs at least 3 classes, got {logits.shape[1]}; use margin")
    best = logits.topk(3, dim=1).values
    return -margins(logits, labels) / (best[:, 0] - best[:, 2] + 1e-12)
