"""Projected gradient descent (Madry et al. 2018, arXiv 1706.06083)."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from attacks_eval.attack import Search, finite_gradient
from attacks_eval.gradients import BPDA, GradMode
from attacks_eval.losses import LossName
from attacks_eval.threat_model import ThreatModel
from models.config import Frozen
from models.pixels import budget_to_unit
from models.streams import Stream


class PGD(Frozen):
    """x <- project(x + step * ascent(gradient)), from `restarts` random points.

    `attack_step` is in 1/255 units; by default a quarter of the budget: 2/255 at 8/255.

    With grad bpda and eot > 1 this is BPDA+EOT (Athalye et al. 2018; Hill et al., arXiv 2005.13525).
    """

    kind: Literal["PGD"] = "PGD"
    steps: int = Field(default=20, ge=0)
    attack_step: float | None = Field(default=None, gt=0)
    restarts: int = Field(default=1, ge=1)
    random_start: bool = True
    loss: LossName = "ce"
    grad: GradMode = BPDA
    eot: int = Field(default=1, ge=1)

    @property
    def climbs(self) -> int:
        """One a restart."""
        return self.restarts

    @property
    def queries(self) -> int:
        """Questions of one search: each iterate, the last one too."""
        return self.restarts * (self.steps + 1)

    def search(self, image: Tensor, label: int, threat: ThreatModel, stream: Stream) -> Search:
        """Yield every iterate of every restart."""
        step = threat.radius / 4 if self.attack_step is None else budget_to_unit(self.attack_step)
        for restart in range(self.restarts):
            x = image
            if self.random_start:
                x = threat.random_start(image, stream.child("start", restart).uniform(image.shape).to(image))
            for _ in range(self.steps):
                answer = yield x
                x = threat.project(x + step * threat.ascent(finite_gradient(answer)), image)
            yield x
