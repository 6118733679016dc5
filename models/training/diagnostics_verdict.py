"""Is learning stable? The rule behind the word at the head of a run's page.

Learning descends the energy gap d = (mean f(positives) - mean f(negatives)) / T. Write f = a g with the shape g held:
then dd/da = d / a, so that d < 0 raises the scale a (energies and drifts expand) and d > 0 lowers it (they contract).
In a healthy run the two alternate and d swings around 0 (Nijkamp et al. 2019, arXiv 1903.12370; EBM Life Cycle,
arXiv 2205.12243).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.training.diagnostics import Series

FEWEST_UPDATES = 200
FEWEST_SWINGS = 10
ONE_SIDED = 0.5
GROWTH = 3.0

Word = Literal["oscillating", "expanding", "contracting", "too early to tell"]

RULE = (
    f"Offset is the gap's mean over its root mean square, and a swing is a passage from above half of that size to "
    f"below its negative, or back. Expanding or contracting: the offset is below {-ONE_SIDED} or above {ONE_SIDED} in "
    f"both halves of the updates. Oscillating: it is in between over all of them, with {FEWEST_SWINGS} swings or more. "
    f"Too early to tell: neither, or fewer than {FEWEST_UPDATES} updates."
)


@dataclass(frozen=True)
class Stability:
    """A verdict and the numbers that it rests on.

    Args:
        offset: mean d over root mean square d, in [-1, 1]; 0 where there is nothing to see.
        swings: passages of d from above half its root mean square to below its negative, or back.
        growth: root mean square of d in the last quarter over that in the first.
    """

    word: Word
    updates: int
    offset: float
    swings: int
    growth: float

    @property
    def grows(self) -> bool:
        """Whether the gap's size has grown so much that learning may be about to diverge."""
        return self.updates >= FEWEST_UPDATES and self.growth > GROWTH


def stability(gaps: Series) -> Stability:
    """The verdict on energy gaps [N] of consecutive updates, by `RULE`."""
    if len(gaps) < FEWEST_UPDATES:
        return Stability("too early to tell", len(gaps), _offset(gaps), _swings(gaps), 1.0)
    quarters = np.array_split(gaps, 4)
    growth = _size(quarters[-1]) / max(_size(quarters[0]), 1e-12)
    return Stability(_word(gaps), len(gaps), _offset(gaps), _swings(gaps), growth)


def _word(gaps: Series) -> Word:
    halves = [_offset(half) for half in np.array_split(gaps, 2)]
    if max(halves) < -ONE_SIDED:
        return "expanding"
    if min(halves) > ONE_SIDED:
        return "contracting"
    if abs(_offset(gaps)) <= ONE_SIDED and _swings(gaps) >= FEWEST_SWINGS:
        return "oscillating"
    return "too early to tell"


def _size(gaps: Series) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(gaps**2))) if len(gaps) else 0.0


def _offset(gaps: Series) -> float:
    size = _size(gaps)
    return float(np.mean(gaps)) / size if size else 0.0


def _swings(gaps: Series) -> int:
    far = gaps[np.abs(gaps) > _size(gaps) / 2]
    return int(np.count_nonzero(np.diff(np.sign(far))))
