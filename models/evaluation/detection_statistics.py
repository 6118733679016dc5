"""How well a score tells unusual images from usual ones: a higher value is more unusual.

Statistics are sums over the distinct values of both kinds, in ascending order, of how many images of each kind have
that value. A bootstrap's resample is other counts at the same values, so that thousands of them are a few tensors.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from models.config import Frozen
from models.evaluation.accuracy import Accuracy

FALSE_POSITIVES = 0.01
RESAMPLES = 1000
RESAMPLES_AT_ONCE = 50


class Counts(NamedTuple):
    """How many usual and unusual images have each of G distinct values, ascending: float64 [..., G] both."""

    usual: Tensor
    unusual: Tensor


class Statistic(Frozen):
    """A statistic with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Detection(Frozen):
    """How well a score finds unusual images among usual ones.

    Args:
        auroc: the chance that an unusual image scores higher than a usual one.
        aupr_unusual, aupr_usual: average precision with the unusual images, or the usual ones, as those to be found;
            at chance it is their share of the images.
        fpr_at_95: the share of unusual images that pass where 95 % of the usual ones do (FPR at 95 % TPR, the usual
            images being the positives, as in Liang et al., arXiv 1706.02690).
    """

    usual: int
    unusual: int
    auroc: Statistic
    aupr_unusual: Statistic
    aupr_usual: Statistic
    fpr_at_95: Statistic


def detection(usual: Tensor, unusual: Tensor, seed: int = 0) -> Detection:
    """Every statistic of finite values [N] and [M], with the percentile interval of RESAMPLES stratified bootstraps.

    Kinds that do not overlap have resamples that all agree; the interval is then Wilson's for as many pairs as the
    smaller kind has images, all of them in the same order, for a width of zero would claim too much.
    """
    observed, places = _counted(usual, unusual)
    found = {name: float(statistic(observed)) for name, statistic in STATISTICS.items()}
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, list[Tensor]] = {name: [] for name in STATISTICS}
    for _ in range(RESAMPLES // RESAMPLES_AT_ONCE):
        resample = Counts(*(_resampled(each, observed.usual.shape[-1], generator) for each in places))
        for name, statistic in STATISTICS.items():
            drawn[name].append(statistic(resample))
    few = min(len(usual), len(unusual))
    estimates = {name: _estimate(found[name], torch.cat(values), few) for name, values in drawn.items()}
    return Detection(usual=len(usual), unusual=len(unusual), **estimates)


def auroc(usual: Tensor, unusual: Tensor) -> float:
    """The chance that an unusual image's value exceeds a usual one's, a tie counting half (Mann and Whitney 1947).

    Args:
        usual, unusual: one value an image, [N] and [M]; raises ValueError unless both hold finite numbers.
    """
    return float(_auroc(_counted(usual, unusual)[0]))


def tpr_at_fpr(usual: Tensor, unusual: Tensor, fpr: float = FALSE_POSITIVES) -> float:
    """The share of unusual images found by the lowest threshold that flags at most `fpr` of the usual ones.

    An image is flagged when its value is greater than the threshold, which is itself a usual value: of N usual images
    the (k + 1)-th greatest, k the most with k / N <= fpr. So with fewer than 1 / fpr usual images none may be flagged,
    and of usual images that tie with the threshold none is.
    """
    if not 0.0 <= fpr < 1.0:
        raise ValueError(f"fpr must be in [0, 1), got {fpr}")
    return float(_tpr_at_fpr(_counted(usual, unusual)[0], fpr))


def roc(usual: Tensor, unusual: Tensor) -> tuple[Tensor, Tensor]:
    """The share of usual images and that of unusual ones above each threshold, from none to all of them."""
    counts = _counted(usual, unusual)[0]
    shares = (functional.pad(_not_below(each) / each.sum(), (0, 1)).flip(-1) for each in counts)
    wrong, found = shares
    return wrong, found


def _auroc(counts: Counts) -> Tensor:
    usual, unusual = counts
    below = usual.cumsum(-1) - usual / 2
    return (unusual * below).sum(-1) / (usual.sum(-1) * unusual.sum(-1))


def _tpr_at_fpr(counts: Counts, fpr: float) -> Tensor:
    total = round(float(counts.usual.sum(-1).flatten()[0]))
    allowed = round(fpr * total)
    if allowed / total > fpr:
        allowed -= 1
    flagged = _not_below(counts.usual) <= allowed
    return (counts.unusual * flagged).sum(-1) / counts.unusual.sum(-1)


def _average_precision(counts: Counts) -> Tensor:
    """The mean over unusual images of the share of unusual ones among all that score no lower; tied ones come together.

    It is the area under the curve of precision and recall without interpolation, which would be too high (Davis and
    Goadrich 2006).
    """
    found, wrong = _not_below(counts.unusual), _not_below(counts.usual)
    precision = found / (found + wrong).clamp(min=1.0)  # a resample may have nothing at the highest values
    return (counts.unusual * precision).sum(-1) / counts.unusual.sum(-1)


def _exchanged(counts: Counts) -> Counts:
    """The usual images as those to be found, by low values."""
    return Counts(counts.unusual.flip(-1), counts.usual.flip(-1))


STATISTICS: dict[str, Callable[[Counts], Tensor]] = {
    "auroc": _auroc,
    "aupr_unusual": _average_precision,
    "aupr_usual": lambda counts: _average_precision(_exchanged(counts)),
    "fpr_at_95": lambda counts: 1.0 - _tpr_at_fpr(counts, 0.05),
}


def _not_below(counts: Tensor) -> Tensor:
    """How many have each value or a higher one, [..., G]."""
    return counts.flip(-1).cumsum(-1).flip(-1)


def _counted(usual: Tensor, unusual: Tensor) -> tuple[Counts, tuple[Tensor, Tensor]]:
    """The counts, and each image's place among the distinct values: [N] and [M]."""
    kinds = _finite(usual), _finite(unusual)
    distinct, places = torch.cat(kinds).unique(return_inverse=True)
    of_usual, of_unusual = places.split([len(kind) for kind in kinds])
    counts = Counts(*(torch.bincount(each, minlength=len(distinct)).double() for each in (of_usual, of_unusual)))
    return counts, (of_usual, of_unusual)


def _resampled(places: Tensor, distinct: int, generator: torch.Generator) -> Tensor:
    """Counts [RESAMPLES_AT_ONCE, G] of as many images, drawn with replacement."""
    drawn = torch.randint(len(places), (RESAMPLES_AT_ONCE, len(places)), generator=generator)
    empty = torch.zeros(RESAMPLES_AT_ONCE, distinct, dtype=torch.float64)
    return empty.scatter_add_(1, places[drawn], torch.ones_like(drawn, dtype=torch.float64))


def _estimate(value: float, resamples: Tensor, few: int) -> Statistic:
    low, high = resamples.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    if low == high and value in (0.0, 1.0):
        low, high = Accuracy(round(value * few), few).interval
    return Statistic(value=round(value, 5), low=round(low, 5), high=round(high, 5))


def _finite(values: Tensor) -> Tensor:
    """The values as float64 [N] on the CPU, at least one, none infinite or NaN."""
    if values.dim() != 1 or not len(values) or not bool(values.isfinite().all()):
        raise ValueError(
            f"expected finite values, one an image; got {tuple(values.shape)}: {values.flatten()[:8].tolist()}"
        )
    return values.detach().cpu().double()
