"""Attacks bound to a defence, called as the field calls them: `attack(images, labels) -> adversarial images`."""

import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attacks_eval.apgd import APGD
from attacks_eval.attack import Attack
from attacks_eval.defence import Defence
from attacks_eval.errors import QuestionError
from attacks_eval.gradients import BPDA, FULL, SMOOTH, stand_in
from attacks_eval.judge import JudgeConfig
from attacks_eval.pgd import PGD
from attacks_eval.protocol import run_attack
from attacks_eval.purifiers import AutogradPurifier, EnergyPurifier, check_gradients
from attacks_eval.slots import Task
from attacks_eval.threat_model import Linf, ThreatModel, check_unit_range
from models.pixels import LEVELS, from_unit
from models.purifier import PurifiedClassifier
from models.streams import Stream


@dataclass(frozen=True)
class Attacker:
    """Any attack on any defence; images that a fresh judge finds broken are attacked no further.

    Args:
        defence: a PurifiedClassifier is attacked under its own preset.
        seed: the same seed gives the same images; an image's randomness goes with its place in the batch.
    """

    defence: Defence | PurifiedClassifier = field(repr=False)
    threat: ThreatModel
    attack: Attack
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    seed: int = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images [B, C, H, W] in [0, 1] for images in [0, 1] and labels [B]; survivors get the best try.

        Raises:
            ValueError: images outside [0, 1].
            QuestionError: another number of labels than images.
            GradientError: exact gradients asked of a purifier that drops them.
        """
        check_unit_range(images)
        if labels.shape != (len(images),):
            raise QuestionError(
                f"expected one label an image, got {len(images)} images and labels {list(labels.shape)}"
            )
        defence = as_defence(self.defence)
        attack = self._resolved(defence, images[:4])
        tasks = [Task(row, image, int(label)) for row, (image, label) in enumerate(zip(images, labels, strict=True))]
        found: dict[int, Tensor] = {}
        run_attack(
            defence,
            attack,
            tasks,
            self.threat,
            Stream((self.seed, "attacker")),
            self.judge,
            lambda task, outcome, image: found.update({task.number: image}),
        )
        return torch.stack([found[row] for row in range(len(images))])

    def _resolved(self, defence: Defence, images: Tensor) -> Attack:
        """The attack, with `smooth` for a `full` gradient that would be blind."""
        purifier = defence.purifier
        if not isinstance(self.attack, PGD | APGD) or self.attack.grad.kind != "full":
            return self.attack
        if isinstance(purifier, AutogradPurifier):
            check_gradients(purifier, from_unit(images))
        if isinstance(purifier, EnergyPurifier) and purifier.piecewise_linear(from_unit(images)):
            note = "the energy is piecewise linear, so grad='full' would be BPDA exactly; 'smooth' is used instead"
            warnings.warn(note, stacklevel=3)
            return self.attack.model_copy(update={"grad": stand_in(self.attack.grad, SMOOTH)})
        return self.attack


def as_defence(defence: Defence | PurifiedClassifier) -> Defence:
    """A PurifiedClassifier under its own preset, or the Defence itself."""
    return defence if isinstance(defence, Defence) else Defence.of(defence)


def BPDAPGD(  # noqa: N802 (the field's name)
    defence: Defence | PurifiedClassifier,
    eps: float = 8 / 255,
    alpha: float = 2 / 255,
    steps: int = 50,
    eot: int = 16,
    seed: int = 0,
) -> Attacker:
    """PGD with the purifier's backward pass replaced by the identity, averaged over `eot` replicates."""
    return Attacker(defence, Linf(eps), PGD(steps=steps, attack_step=alpha * LEVELS, eot=eot, grad=BPDA), seed=seed)


def FullGradPGD(  # noqa: N802
    defence: Defence | PurifiedClassifier,
    eps: float = 8 / 255,
    alpha: float = 2 / 255,
    steps: int = 50,
    eot: int = 16,
    seed: int = 0,
) -> Attacker:
    """PGD with the purifier's exact gradient; with its smooth twin's, and a warning, where the exact one is blind."""
    return Attacker(defence, Linf(eps), PGD(steps=steps, attack_step=alpha * LEVELS, eot=eot, grad=FULL), seed=seed)
