"""Random search: points of the ball drawn without looking at the answers, the floor under every other attack."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from attacks_eval.attack import Search
from attacks_eval.losses import LossName
from attacks_eval.threat_model import ThreatModel
from models.config import Frozen
from models.streams import Stream


class RandomNoise(Frozen):
    """Try `queries` points, uniform in the ball, then clipped to [0, 1]."""

    kind: Literal["RandomNoise"] = "RandomNoise"
    loss: LossName = "margin"
    climbs: ClassVar[int] = 1
    grad: None = None
    eot: int = Field(default=1, ge=1)
    queries: int = Field(default=100, ge=1)

    def search(self, image: Tensor, label: int, threat: ThreatModel, stream: Stream) -> Search:
        """Yield one point per query."""
        for query in range(self.queries):
            yield _point(image, threat, stream.child(query))


class Corners(Frozen):
    """Try `queries` points as far away as allowed: random corners of the L-infinity ball, random directions in L2.

    A linear loss is largest at a corner, and varies more from corner to corner than between points inside.
    """

    kind: Literal["Corners"] = "Corners"
    loss: LossName = "margin"
    climbs: ClassVar[int] = 1
    grad: None = None
    eot: int = Field(default=1, ge=1)
    queries: int = Field(default=100, ge=1)

    def search(self, image: Tensor, label: int, threat: ThreatModel, stream: Stream) -> Search:
        """Yield one corner per query."""
        for query in range(self.queries):
            direction = threat.ascent(stream.child(query).normal(image.shape).to(image))
            yield threat.project(image + threat.radius * direction, image)


def _point(image: Tensor, threat: ThreatModel, stream: Stream) -> Tensor:
    """A uniform point of the ball; in L2 a random direction, at radius * u^(1/d) because volume grows as r^d."""
    if threat.norm == "linf":
        return threat.random_start(image, stream.uniform(image.shape).to(image))
    direction = threat.ascent(stream.child("direction").normal(image.shape).to(image))
    share = stream.child("length").generator().random() ** (1 / image.numel())
    return threat.project(image + threat.radius * share * direction, image)
