"""Auto-PGD: momentum, and a step size that halves where progress stalls (Croce and Hein 2020, arXiv 2003.01690).

The paper's method for deterministic networks, fed with averages over replicates: the loss that steers the step size,
and picks the point to return to, is the mean-logit loss, never that of one draw.
"""

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from attacks_eval.attack import Aimed, Search, finite_gradient
from attacks_eval.gradients import BPDA, GradMode
from attacks_eval.losses import LossName
from attacks_eval.threat_model import ThreatModel
from models.config import Frozen
from models.streams import Stream

MOMENTUM = 0.75
PROGRESS = 0.75


class APGD(Frozen):
    """Auto-PGD with random restarts; no step size to choose.

    Args:
        targets: climb towards each of so many wrong classes instead, those of the largest logits of the image first
            (the paper's APGD-T, with the plain difference of two logits in place of the ratio).
    """

    kind: Literal["APGD"] = "APGD"
    steps: int = Field(default=50, ge=1)
    restarts: int = Field(default=1, ge=1)
    loss: LossName = "dlr"
    grad: GradMode = BPDA
    eot: int = Field(default=1, ge=1)
    # Left out of what is written where it is 0: evaluations from before it still resume.
    targets: int = Field(default=0, ge=0, exclude_if=lambda value: not value)

    @model_validator(mode="after")
    def _aims_by_margins(self) -> "APGD":
        if self.targets and self.loss != "margin":
            raise ValueError(f"targets need loss margin, got {self.loss}")
        return self

    @property
    def climbs(self) -> int:
        """One a restart and target."""
        return self.restarts * max(1, self.targets)

    @property
    def queries(self) -> int:
        """Questions of one search: each iterate, the last one too, and the one that ranks targets."""
        return self.climbs * (self.steps + 1) + (self.targets > 0)

    def search(self, image: Tensor, label: int, threat: ThreatModel, stream: Stream) -> Search:
        """Yield every iterate of every restart."""
        targets: list[int | None] = [None]
        if self.targets:
            answer = yield image
            ranked = answer.logits.argsort(descending=True).tolist()
            targets = [each for each in ranked if each != label][: self.targets]
        for climb, target in enumerate(target for _ in range(self.restarts) for target in targets):
            uniform = stream.child("start", climb).uniform(image.shape).to(image)
            yield from self._climb(threat.random_start(image, uniform), image, threat, target)

    def _climb(self, x: Tensor, image: Tensor, threat: ThreatModel, target: int | None) -> Search:
        schedule = set(checkpoints(self.steps))
        step, previous = 2.0 * threat.radius, x
        answer = yield _question(x, target)
        best, best_loss, best_gradient, last_loss = x, answer.loss, finite_gradient(answer), answer.loss
        rises, since, best_at_checkpoint, halved = 0, 0, best_loss, True
        gradient = best_gradient
        for iteration in range(1, self.steps + 1):
            ahead = threat.project(x + step * threat.ascent(gradient), image)
            momentum = MOMENTUM if iteration > 1 else 1.0
            moved = threat.project(x + momentum * (ahead - x) + (1.0 - momentum) * (x - previous), image)
            previous, x = x, moved
            answer = yield _question(x, target)
            gradient = finite_gradient(answer)
            rises, since = rises + (answer.loss > last_loss), since + 1
            last_loss = answer.loss
            if answer.loss > best_loss:
                best, best_loss, best_gradient = x, answer.loss, gradient
            if iteration in schedule:
                stalled = rises < PROGRESS * since or (not halved and best_loss <= best_at_checkpoint)
                if stalled:
                    step, x, previous, gradient, last_loss = step / 2.0, best, best, best_gradient, best_loss
                halved, rises, since, best_at_checkpoint = stalled, 0, 0, best_loss


def _question(x: Tensor, target: int | None) -> Tensor | Aimed:
    return x if target is None else Aimed(x, target)


def checkpoints(steps: int) -> list[int]:
    """The iterations at which progress is examined: the paper's fractions 0.22, 0.41, 0.57, ... of the steps."""
    fractions = [0.0, 0.22]
    while fractions[-1] < 1.0:
        fractions.append(fractions[-1] + max(fractions[-1] - fractions[-2] - 0.03, 0.06))
    return sorted({int(fraction * steps + 0.999999) for fraction in fractions[1:-1]} - {0})
