"""Square Attack: random search over square windows, by the loss alone (Andriushchenko et al. 2020, arXiv 1912.00049).

Against a random defence a plain random search freezes: its best image is the luckiest draw of the noise so far, and
real improvements no longer beat that number. So winners, and now and then the best image, are measured again.
"""

import math
from bisect import bisect_right
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from attacks_eval.attack import Search
from attacks_eval.losses import LossName
from attacks_eval.threat_model import ThreatModel
from models.config import Frozen
from models.streams import Stream

# Proposals, out of 10,000, from which the window's share of the image has halved once more: the authors' schedule.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
# A proposal that changes no pixel would ask what is known already, so its window is drawn again, up to so often.
REDRAWS = 20
# The L2 starting image is a grid of this many tiles across its shorter side.
TILES = 5


class Square(Frozen):
    """Propose one random window at a time, and keep it where the loss grows.

    `p_init` is the window's first share of the image. With `remeasure` 0 this is the paper's algorithm, right for a
    deterministic defence. Otherwise a proposal that beats the best image is asked about twice and has to win on
    average; and after every `remeasure` proposals the best image is asked about again. The first such answer replaces
    those it won by, which selection has biased upwards, and later ones join its mean. Proposals depend on their number
    alone, so on a deterministic defence the repeats cost queries and change nothing else.
    """

    kind: Literal["Square"] = "Square"
    loss: LossName = "margin"
    climbs: ClassVar[int] = 1
    grad: None = None
    eot: int = Field(default=1, ge=1)
    max_queries: int = Field(default=1000, ge=1)
    p_init: float = Field(default=0.8, gt=0, le=1)
    remeasure: int = Field(default=20, ge=0)

    @property
    def queries(self) -> int:
        """The most questions that one search asks, repeated measurements included."""
        return self.max_queries

    def share(self, proposal: int) -> float:
        """The window's share of the image at a proposal, counted from 0: `p_init`, halved along the schedule."""
        return self.p_init / (1 << bisect_right(HALVINGS, proposal * 10_000 // self.max_queries))

    def search(self, image: Tensor, label: int, threat: ThreatModel, stream: Stream) -> Search:
        """Yield the starting image, then proposals and repeated measurements until `max_queries` are spent."""
        best = _start(image, threat, stream.child("start"))
        loss = (yield best).loss
        asked, proposal, fresh = 1, 0, 0
        while asked < self.max_queries:
            candidate = _propose(best, image, threat, self.share(proposal), stream.child("proposal", proposal))
            new = (yield candidate).loss
            asked, proposal = asked + 1, proposal + 1
            if self.remeasure and _better(new, loss) and asked < self.max_queries:
                new = (new + (yield candidate).loss) / 2
                asked += 1
            if _better(new, loss):
                best, loss, fresh = candidate, new, 0
            if self.remeasure and proposal % self.remeasure == 0 and asked < self.max_queries:
                again = (yield best).loss
                asked, fresh = asked + 1, fresh + 1
                loss += (again - loss) / fresh


def _better(new: float, old: float) -> bool:
    """Whether the loss grew; anything is better than NaN."""
    return new > old or math.isnan(old)


def _start(image: Tensor, threat: ThreatModel, stream: Stream) -> Tensor:
    """Vertical stripes of width one and full strength (L-infinity), or a grid of bumps of full length (L2)."""
    generator = stream.generator()
    channels, height, width = image.shape
    if threat.norm == "linf":
        stripes = _signs(generator, channels, 1, width)
        return threat.project(image + threat.radius * torch.from_numpy(stripes).to(image), image)
    side = max(1, min(height, width) // TILES)
    rows, columns = height // side, width // side
    signs, turned = _signs(generator, channels, rows, columns), generator.random((rows, columns)) < 0.5
    bump = _bump(side)
    grid = np.zeros((channels, height, width))
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    grid[:, top : top + rows * side, left : left + columns * side] = np.kron(signs * turned, bump.T[None]) + np.kron(
        signs * ~turned, bump[None]
    )
    return threat.project(image + threat.ascent(torch.from_numpy(grid).to(image)) * threat.radius, image)


def _propose(best: Tensor, image: Tensor, threat: ThreatModel, share: float, stream: Stream) -> Tensor:
    """The best image with one random window changed, inside the threat model."""
    generator = stream.generator()
    _, height, width = image.shape
    side = max(1, round(math.sqrt(share * height * width)))
    for _ in range(REDRAWS):
        if threat.norm == "linf":
            candidate = _recolour(best, image, threat, min(side, height, width), generator)
        else:
            # Bumps have a middle: an odd side of at least 3.
            candidate = _move_length(best, image, threat, min(max(side | 1, 3), height, width), generator)
        if not torch.equal(candidate, best):
            break
    return candidate


def _recolour(best: Tensor, image: Tensor, threat: ThreatModel, side: int, generator: np.random.Generator) -> Tensor:
    """L-infinity: each channel of a square window goes to the top or to the bottom of the ball (algorithm 2)."""
    rows, columns = _window(image, side, generator)
    signs = torch.from_numpy(_signs(generator, len(image), 1, 1)).to(image)
    candidate = best.clone()
    candidate[:, rows, columns] = image[:, rows, columns] + threat.radius * signs
    return threat.project(candidate, image)


def _move_length(best: Tensor, image: Tensor, threat: ThreatModel, side: int, generator: np.random.Generator) -> Tensor:
    """L2: clear one window, and spend its length and any unused on a signed bump in another (algorithm 3)."""
    channels = len(image)
    change = best - image
    target, source = _window(image, side, generator), _window(image, side, generator)
    bump = torch.from_numpy(_bump(side)).to(image)
    if generator.random() < 0.5:
        bump = bump.T
    union = torch.zeros_like(change[0], dtype=torch.bool)
    union[target] = union[source] = True
    unused = (threat.radius**2 - change.square().sum()).clamp(min=0)
    length = (change[:, union].square().sum(1) + unused / channels).sqrt()[:, None, None]
    signs = torch.from_numpy(_signs(generator, channels, 1, 1)).to(image)
    shape = _unit(_unit(change[:, *target]) + signs * bump)
    change[:, *source] = 0
    change[:, *target] = shape * length
    return threat.project(image + change, image)


def _window(image: Tensor, side: int, generator: np.random.Generator) -> tuple[slice, slice]:
    """The rows and columns of a square of the given side, anywhere inside the image."""
    _, height, width = image.shape
    top, left = (int(generator.integers(room + 1)) for room in (height - side, width - side))
    return slice(top, top + side), slice(left, left + side)


def _signs(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.integers(0, 2, shape) * 2.0 - 1.0


def _bump(side: int) -> np.ndarray:
    """Two pyramids of opposite sign side by side, of length one together, [side, side] (equation 2)."""
    bump = np.hstack([_pyramid(side, side // 2), -_pyramid(side, side - side // 2)])
    unit: np.ndarray = bump / np.linalg.norm(bump)
    return unit


def _pyramid(height: int, width: int) -> np.ndarray:
    """Nested rings around the middle; the ring at depth k adds 1 / (n + 1 - k)^2 to all inside it, n = height // 2."""
    half = height // 2
    rows, columns = (np.abs(np.arange(size) - size // 2) for size in (height, width))
    heights: np.ndarray = np.cumsum(1 / np.arange(half + 1, 0, -1.0) ** 2)
    pyramid: np.ndarray = heights[half - np.maximum.outer(rows, columns)]
    return pyramid


def _unit(windows: Tensor) -> Tensor:
    """Each channel [H, W] scaled to length one; zeros stay zeros."""
    lengths: Tensor = torch.linalg.vector_norm(windows, dim=(-2, -1), keepdim=True)
    return windows / lengths.clamp(min=1e-12)
