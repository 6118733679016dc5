"""How unusual an image is to the defence, as a share of clean images: its suspicion, in [0, 1).

Three signals of one image, each read from above alone: `attacks_eval` found attacked images moved farther and losing
more energy than clean ones, and their replicates at odds as often or more often, never the reverse beyond chance.

Scale. Let a_1 <= ... <= a_n be a signal's values on n clean reference images, and k the number of a_i < v. Then
    rank(v) = 0                                           for k = 0,
              (k - 1 + (v - a_k) / (a_(k+1) - a_k)) / n   for 0 < k < n,
              (n - 1) / n + (v - a_n) / (v - a_1)         for k = n.
It never falls, is k / n at every reference value, and beyond the largest one still tells far from farther.
Score. The most unusual signal decides: score = the largest of the three ranks, to six decimals.
Suspicion. With the scores s_1, ..., s_m of m other clean images, suspicion = #{s_i < score} / (m + 1).

A clean image that comes like those m is equally likely to have any place among the m + 1 scores, whatever the reference
images are, so P(suspicion >= j / (m + 1)) <= 1 - j / (m + 1), with equality when no two scores are equal (split
conformal prediction, Vovk et al. 2005). Equal scores are counted as not less unusual, which lowers suspicion. The
probability is over both the image and the m others: with those that a bundle holds, the share of clean images whose
suspicion exceeds q scatters about 1 - q with a standard deviation of sqrt(q (1 - q) / m). Nothing reaches 1.
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from models.config import Frozen
from models.pixels import distance_l2
from models.purifier import Preset, agreement

# One image in five sets the scale, at most this many: how exact suspicion is depends on the number of the others.
REFERENCE_IMAGES = 200
ONE_IN = 5
# Four fifths of them are 20 scores, and 20 / 21 is the first suspicion above 0.95.
MINIMUM_IMAGES = 25


class Signals(NamedTuple):
    """What purification shows of each image, [B] each: higher is more unusual."""

    disagreement: Tensor
    movement: Tensor
    energy_drop: Tensor


def measure_signals(images: Tensor, purified: Tensor, logits: Tensor, energy_drop: Tensor) -> Signals:
    """The signals of images [B, C, H, W] in [-1, 1] from their R replicates.

    Args:
        purified: [R, B, C, H, W] in [-1, 1], not clamped; movement is its mean L2 distance in [0, 1] pixel units.
        logits: [R, B, K]; disagreement is the share of votes against the label of their mean.
        energy_drop: [R, B], U before the first step minus U before the last one; averaged over replicates.
    """
    movement = torch.stack([distance_l2(replicate, images) for replicate in purified]).mean(0)
    return Signals(1.0 - agreement(logits), movement, energy_drop.mean(0))


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(values):
        raise ValueError("expected values in ascending order")
    return values


Ascending = Annotated[tuple[float, ...], Field(min_length=1), AfterValidator(_ascending)]


class Reference(Frozen):
    """Each signal's values on the clean images that set its scale."""

    disagreement: Ascending
    movement: Ascending
    energy_drop: Ascending

    def scores(self, signals: Signals) -> Tensor:
        """The largest rank of the three signals, float64 [B] on the CPU; raises ValueError unless all are finite."""
        ranks = [_rank(getattr(self, name), values) for name, values in signals._asdict().items()]
        return torch.stack(ranks).amax(0).round(decimals=6)


def _rank(reference: tuple[float, ...], values: Tensor) -> Tensor:
    """This module's rank(v) of each value [B], float64 on the CPU."""
    a, v = torch.tensor(reference, dtype=torch.float64), _finite(values)
    n, k = len(a), torch.searchsorted(a, v)
    lower, upper = a[(k - 1).clamp(min=0)], a[k.clamp(max=n - 1)]
    within, beyond = (k - 1 + (v - lower) / (upper - lower)) / n, (n - 1) / n + (v - a[-1]) / (v - a[0])
    return torch.where(k == 0, 0.0, torch.where(k == n, beyond, within))


def _finite(values: Tensor) -> Tensor:
    """Float64 [B] on the CPU; raises ValueError unless all are finite."""
    if not values.isfinite().all():
        raise ValueError(f"expected finite signals, got {values.tolist()}")
    return values.detach().cpu().double().contiguous()


class Typicality(Frozen):
    """How far U of clean images lies from its mean: one that is too likely is as unusual as one that is not enough.

    Most of a density's mass need not lie where it is highest (Nalisnick et al., arXiv 1906.02994): images of one colour
    often have a low U, and are no clean images.

    Args:
        mean: of U over the images that set the scale.
        distances: |U - mean| of the others.
    """

    mean: float
    distances: Ascending

    def ood(self, energies: Tensor) -> Tensor:
        """The share of clean images whose U lies nearer to the mean, float64 [B] on the CPU, calibrated like suspicion.

        Args:
            energies: U of images before any step, [B]; raises ValueError unless all are finite.
        """
        distances = (_finite(energies) - self.mean).abs()
        nearer = torch.searchsorted(torch.tensor(self.distances, dtype=torch.float64), distances)
        return nearer.double() / (len(self.distances) + 1)


class Origin(Frozen):
    """What a calibration was measured with; `weights` is the bundle's `weights_digest`, `images` are test images."""

    preset: Preset
    weights: str
    data: str
    first: int
    images: int
    seed: int


class Calibration(Frozen):
    """Where clean images lie under one preset: the scale of each signal, and the scores of the other images.

    `typicality` is of the energies before the first step; calibrations from before it lack it.
    """

    origin: Origin
    reference: Reference
    scores: Ascending
    typicality: Typicality | None = None

    @property
    def largest(self) -> float:
        """The suspicion that no image exceeds, m / (m + 1)."""
        return len(self.scores) / (len(self.scores) + 1)

    def suspicion(self, signals: Signals) -> Tensor:
        """The share of clean images that look less unusual, float64 [B] on the CPU.

        Raises:
            ValueError: a signal that is not finite.
        """
        less = torch.searchsorted(torch.tensor(self.scores, dtype=torch.float64), self.reference.scores(signals))
        return less.double() / (len(self.scores) + 1)


def fit_calibration(signals: Signals, origin: Origin, energies: Tensor | None = None) -> Calibration:
    """The calibration that clean images [B] make, at least MINIMUM_IMAGES; the reference is spread evenly over them.

    Args:
        energies: U of the images as they came [B]; None leaves typicality out.
    """
    count = len(signals.movement)
    step = max(ONE_IN, -(-count // REFERENCE_IMAGES))
    is_reference = torch.arange(count) % step == 0
    reference = Reference(**{name: _stored(values[is_reference]) for name, values in signals._asdict().items()})
    scores = reference.scores(Signals(*(values[~is_reference] for values in signals)))
    typicality = None if energies is None else _fit_typicality(_finite(energies), is_reference)
    return Calibration(
        origin=origin, reference=reference, scores=tuple(scores.sort().values.tolist()), typicality=typicality
    )


def _fit_typicality(energies: Tensor, is_reference: Tensor) -> Typicality:
    mean = float(energies[is_reference].mean())
    return Typicality(mean=mean, distances=_stored((energies[~is_reference] - mean).abs()))


def _stored(values: Tensor) -> tuple[float, ...]:
    """Ascending, six significant digits, which costs signals no validity: their scores are taken with these values."""
    return tuple(sorted(float(f"{value:.6g}") for value in values.tolist()))
