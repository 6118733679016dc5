"""What an attack is: a search for one image, written as straight-line code that asks the defence questions.

An attack is a generator. It yields images to ask about and is sent the defence's answer; whoever drives it batches the
questions of many images and their replicates, judges candidates, and closes the search as soon as the image is broken.
So no attack holds a loop over images, a replicate axis or a verdict.
"""

from collections.abc import Generator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from attacks_eval.gradients import GradMode
from attacks_eval.losses import LossName
from attacks_eval.threat_model import ThreatModel
from models.streams import Stream


class Answer(NamedTuple):
    """The defence's answer, averaged over replicates: logits [K], the attack's loss, and its gradient [C, H, W].

    The gradient is None when the attack's `grad` is None (a black-box attack).
    """

    logits: Tensor
    loss: float
    gradient: Tensor | None


class Aimed(NamedTuple):
    """A candidate that is to be taken for the class `target`: its loss is that logit minus the true one."""

    image: Tensor
    target: int


Search = Generator[Tensor | Aimed, Answer, None]
"""Yields candidates [C, H, W] in [0, 1], inside the threat model; the attacker maximises the loss."""


class Attack(Protocol):
    """The configuration of an attack: how its questions are answered, and the search itself."""

    @property
    def loss(self) -> LossName: ...

    @property
    def grad(self) -> GradMode | None: ...

    @property
    def eot(self) -> int:
        """Replicates averaged in each answer."""
        ...

    @property
    def queries(self) -> int:
        """The most questions that one search asks, for the predicted cost."""
        ...

    @property
    def climbs(self) -> int:
        """How many climbs of equal length one search is made of."""
        ...

    def search(self, image: Tensor, label: int, threat: ThreatModel, stream: Stream) -> Search:
        """Attack one image [C, H, W] in [0, 1]; `stream` is the attack's own randomness."""
        ...


def finite_gradient(answer: Answer) -> Tensor:
    """The answer's gradient; raises ValueError for an attack that was answered without one."""
    if answer.gradient is None:
        raise ValueError("the attack needs gradients, and was answered without one")
    return torch.nan_to_num(answer.gradient)
