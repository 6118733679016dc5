"""The statistics of randomised smoothing (Cohen, Rosenfeld and Kolter 2019, arXiv 1902.02918).

The smoothed classifier g(x) answers the class that the base classifier f answers most often at x + N(0, sigma^2 I). If
that class has probability above p > 1/2, g answers it everywhere closer to x than sigma * Phi^-1(p), in L2. Only draws
of f are to be had, so p is a confidence bound, and each statement may be wrong with probability alpha, over the draws.

`draws` are independent; `successes` are the draws that answered a class named beforehand. sigma and radii are in [0, 1]
pixel units.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from torch import Tensor

# The error probability of each statement, as in the paper: confidence 99.9 %.
ALPHA = 0.001


class Interval(NamedTuple):
    """Bounds of a probability."""

    low: float
    high: float


@dataclass(frozen=True)
class Certificate:
    """What the draws show about one image: P(f = top) > `lower`, with confidence 1 - alpha."""

    top: int
    successes: int
    draws: int
    sigma: float
    alpha: float
    lower: float

    @property
    def prediction(self) -> int | None:
        """The certified class, or None: abstention."""
        return self.top if self.lower > 0.5 else None

    @property
    def radius(self) -> float:
        """The L2 radius inside which the smoothed classifier keeps its prediction; 0 on abstention."""
        return certified_radius(self.lower, self.sigma)

    def as_json(self) -> dict[str, Any]:
        """Counts, settings, bound and radius."""
        counts = {"top": self.top, "successes": self.successes, "draws": self.draws}
        settings = {"sigma": self.sigma, "alpha": self.alpha}
        return {**counts, **settings, "lower": self.lower, "prediction": self.prediction, "radius": self.radius}


def binomial_tail(successes: int, draws: int, probability: float) -> float:
    """P(X >= successes) for X ~ Binomial(draws, probability), 0 < probability < 1."""
    return _tail(*_log_terms(successes, draws), draws, probability)


def lower_bound(successes: int, draws: int, alpha: float = ALPHA) -> float:
    """The one-sided Clopper-Pearson bound: a probability is below it with a chance of at most alpha.

    The p of P(X >= successes | p) = alpha, which is the alpha quantile of Beta(successes, draws - successes + 1); 0
    without a success, alpha^(1 / draws) without a failure. Clopper and Pearson 1934.

    Raises:
        ValueError: counts that are not 0 <= successes <= draws with draws >= 1, or alpha outside (0, 1).
    """
    _check(successes, draws, alpha)
    if successes == 0:
        return 0.0
    terms = _log_terms(successes, draws)
    low, high = 0.0, 1.0
    # The tail grows with p. Bisection ends at neighbouring floats, on the side where the tail is at most alpha.
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _tail(*terms, draws, middle) <= alpha else (low, middle)
    return low


def clopper_pearson(successes: int, draws: int, alpha: float = ALPHA) -> Interval:
    """The two-sided Clopper-Pearson interval: alpha / 2 at either end; raises ValueError as `lower_bound` does."""
    low = lower_bound(successes, draws, alpha / 2)
    return Interval(low, 1.0 - lower_bound(draws - successes, draws, alpha / 2))


def certified_radius(lower: float, sigma: float) -> float:
    """sigma * Phi^-1(lower), in [0, 1] pixel units; 0 when lower <= 1/2. Cohen et al., theorem 1 with p_B = 1 - p_A."""
    return sigma * NormalDist().inv_cdf(lower) if lower > 0.5 else 0.0


def largest_radius(draws: int, sigma: float, alpha: float = ALPHA) -> float:
    """The radius when every draw agrees, sigma * Phi^-1(alpha^(1 / draws)): no image can be certified beyond it."""
    return certified_radius(lower_bound(draws, draws, alpha), sigma)


def successes_needed(draws: int, alpha: float = ALPHA) -> int:
    """The fewest successes whose lower bound exceeds 1/2; draws + 1 when even all of them do not suffice."""
    _check(0, draws, alpha)
    return bisect_left(range(draws + 1), True, key=lambda count: binomial_tail(count, draws, 0.5) < alpha)


def certify_counts(
    selection: Sequence[int], successes: int, draws: int, sigma: float, alpha: float = ALPHA
) -> Certificate:
    """CERTIFY: the class that the selection counts favour, and the bound that other draws give for it.

    Selection and estimation must be independent draws: a bound for the class that won on the same draws is too high.

    Args:
        selection: how often each class was answered; the first of equals is taken, which costs power, not validity.
        successes: how often that class was answered in `draws` further draws.

    Raises:
        ValueError: as `lower_bound` does.
    """
    return Certificate(top_class(selection), successes, draws, sigma, alpha, lower_bound(successes, draws, alpha))


def certify_logits(logits: Tensor, selection: int, sigma: float, alpha: float = ALPHA) -> Certificate:
    """CERTIFY from the logits [N, K] of N independent noisy draws: the first `selection` choose the class, the others
    bound its probability.

    Raises:
        ValueError: other than 1 <= selection < N, or alpha outside (0, 1).
    """
    if logits.dim() != 2 or not 1 <= selection < len(logits):
        raise ValueError(f"expected 1 <= selection < N and logits [N, K], got {selection} and {list(logits.shape)}")
    labels = logits.argmax(1)
    counts = labels[:selection].bincount(minlength=logits.shape[1]).tolist()
    successes = int((labels[selection:] == top_class(counts)).sum())
    return certify_counts(counts, successes, len(logits) - selection, sigma, alpha)


def top_class(counts: Sequence[int]) -> int:
    """The class with the largest count, the first of equals."""
    return max(range(len(counts)), key=counts.__getitem__)


def _log_terms(successes: int, draws: int) -> tuple[Tensor, Tensor]:
    """The counts successes..draws, and the logarithms of their binomial coefficients, float64."""
    counts = torch.arange(successes, draws + 1, dtype=torch.float64, device="cpu")
    ways = math.lgamma(draws + 1) - torch.lgamma(counts + 1) - torch.lgamma(draws - counts + 1)
    return counts, ways


def _tail(counts: Tensor, log_ways: Tensor, draws: int, probability: float) -> float:
    """The sum over `counts` of ways * p^count * (1 - p)^(draws - count)."""
    logs = log_ways + counts * math.log(probability) + (draws - counts) * math.log1p(-probability)
    return min(1.0, float(logs.exp().sum()))


def _check(successes: int, draws: int, alpha: float) -> None:
    if not (0 <= successes <= draws and draws >= 1):
        raise ValueError(f"expected 0 <= successes <= draws and at least 1 draw, got {successes} of {draws}")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"expected alpha in (0, 1), got {alpha}")
