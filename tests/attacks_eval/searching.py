"""Defences with answers known on paper, and a search driven by hand."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attacks_eval.attack import Answer, Attack
from attacks_eval.defence import Defence
from attacks_eval.losses import attack_loss
from attacks_eval.purifiers import AutogradPurifier
from attacks_eval.threat_model import ThreatModel
from models.noise import Noise
from models.streams import Stream

SHAPE = (3, 4, 4)
WEIGHTS = torch.randn(48, generator=torch.Generator().manual_seed(0))


def linear(x: Tensor) -> Tensor:
    """Two classes, logits (0, w x) on [-1, 1] images."""
    score = x.flatten(1) @ WEIGHTS
    return torch.stack([torch.zeros_like(score), score], dim=1)


def on_levels(margins: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Images of class 1 that a file can hold, with these scores in units of |w|_1, and their labels."""
    scale = float(WEIGHTS.abs().sum() / WEIGHTS.square().sum())
    around_grey = [((margin * scale * WEIGHTS + 1) / 2).view(SHAPE) for margin in margins]
    return (torch.stack(around_grey) * 255).round() / 255, torch.ones(len(margins), dtype=torch.long)


def drive(attack: Attack, image: Tensor, label: int, threat: ThreatModel, stream: Stream) -> list[tuple[Tensor, float]]:
    """Every candidate of a search against `linear` on 2 x - 1, with its loss; nothing stops it early."""
    search, asked = attack.search(image, label, threat, stream), []
    candidate = next(search)
    while True:
        x = candidate.clone().requires_grad_(True)
        logits = linear(2 * x[None] - 1)
        loss = attack_loss(attack.loss, logits, torch.tensor([label]))[0]
        (gradient,) = torch.autograd.grad(loss, x)
        asked.append((candidate, float(loss.detach())))
        try:
            candidate = search.send(Answer(logits[0].detach(), float(loss.detach()), gradient))
        except StopIteration:
            return asked


def noisy_linear(noise: float) -> Defence:
    """A linear classifier behind a purifier that adds Gaussian noise: the margin of one draw is Gaussian too."""

    def purify(x: Tensor, randn_like: Noise) -> Tensor:
        return x + noise * randn_like(x)

    return Defence(AutogradPurifier(purify), linear, served_replicates=4)


def plain(function: Callable[[Tensor], Tensor], classify: Callable[[Tensor], Tensor] = linear) -> Defence:
    """A purifier without randomness."""
    return Defence(AutogradPurifier(lambda x, noise: function(x)), classify)
