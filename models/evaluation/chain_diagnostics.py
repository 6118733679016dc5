"""Have chains forgotten where they started, and how many independent draws are they worth?

Split R-hat and effective sample sizes of Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021), "Rank-normalization,
folding, and localization: an improved R-hat for assessing convergence of MCMC". Draws are [T, N]: T in time, N chains.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

MINIMUM_DRAWS = 8
"""Fewer draws of a chain do not tell its halves apart."""


@dataclass(frozen=True)
class Diagnosis:
    """Of one summary over all chains.

    `rhat` is near 1 (below 1.01, say the authors) once chains agree; `autocorrelation_time` is in steps, None where
    the summary never changed.
    """

    name: str
    draws: int
    chains: int
    mean: float
    standard_deviation: float
    rhat: float | None
    effective_samples: float | None
    autocorrelation_time: float | None

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def diagnose(trace: Tensor, names: Sequence[str], steps_between: int) -> list[Diagnosis]:
    """One diagnosis for each summary of a trace [T, N, S]; none for fewer than MINIMUM_DRAWS draws."""
    if len(trace) < MINIMUM_DRAWS:
        return []
    return [_diagnose(trace[..., index].double(), name, steps_between) for index, name in enumerate(names)]


def split_rhat(draws: Tensor) -> float:
    """The larger of two R-hats over half chains: of rank-normalised draws, which sees that places differ, and of
    their rank-normalised distances from the median, which sees that spreads do."""
    halves = split_chains(draws.double())
    folded = (halves - halves.flatten().quantile(0.5)).abs()
    return max(_rhat(rank_normalise(halves)), _rhat(rank_normalise(folded)))


def bulk_effective_samples(draws: Tensor) -> float:
    """How many independent draws the chains are worth for the middle of the distribution."""
    return effective_samples(rank_normalise(split_chains(draws.double())))


def autocorrelation_time(draws: Tensor) -> float:
    """1 + 2 * (sum of the autocorrelations), in draws: so many are worth one independent draw for the mean."""
    halves = split_chains(draws.double())
    return halves.numel() / effective_samples(halves)


def effective_samples(draws: Tensor) -> float:
    """T N / (1 + 2 sum_t rho_t), with chains' disagreement counted in rho and the sum ended by Geyer (1992).

    At most T N log10(T N), as the authors bound what chains can gain that swing against themselves.
    """
    length, chains = draws.shape
    covariance = autocovariance(draws).mean(1)
    within = covariance[0] * length / (length - 1)
    variance = covariance[0] + (draws.mean(0).var() if chains > 1 else 0.0)
    rho = 1.0 - (within - covariance) / variance
    rho[0] = 1.0
    pairs = rho[: length // 2 * 2].view(-1, 2).sum(1)
    negative = (pairs < 0).nonzero()
    end = int(negative[0]) if len(negative) else len(pairs) - 1
    monotone = pairs[:end].cummin(0).values
    # The even lag of the pair that ends the sum is added when it is positive, as the authors do.
    total = 2.0 * float(monotone.sum()) - 1.0 + max(float(rho[2 * end]), 0.0)
    return draws.numel() / max(total, 1.0 / math.log10(draws.numel()))


def autocovariance(draws: Tensor) -> Tensor:
    """Of each chain at each lag t, [T, N]: sum_s (x_s - mean)(x_{s + t} - mean) / T, by the Fourier transform."""
    length = len(draws)
    spectrum = torch.fft.rfft(draws - draws.mean(0), n=2 * length, dim=0)
    sums: Tensor = torch.fft.irfft(spectrum.abs().square(), n=2 * length, dim=0)[:length]
    return sums / length


def split_chains(draws: Tensor) -> Tensor:
    """[T, N] to [T // 2, 2 N], the halves of each chain as chains of their own; a draw between them is dropped."""
    half = len(draws) // 2
    return torch.cat([draws[:half], draws[len(draws) - half :]], dim=1)


def rank_normalise(draws: Tensor) -> Tensor:
    """The normal quantile at (r - 3/8) / (n + 1/4), r a draw's rank among all n; ties share their mean rank."""
    _, places, counts = draws.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = last - (counts - 1) / 2
    quantiles: Tensor = torch.special.ndtri((ranks[places] - 0.375) / (draws.numel() + 0.25))
    return quantiles


def _rhat(draws: Tensor) -> float:
    """sqrt of the pooled over the within-chain variance; 1 for equal constants, infinite for different ones."""
    length = len(draws)
    within, between = float(draws.var(0).mean()), float(draws.mean(0).var())
    if within == 0.0:
        return 1.0 if between == 0.0 else math.inf
    return math.sqrt((length - 1) / length + between / within)


def _diagnose(draws: Tensor, name: str, steps_between: int) -> Diagnosis:
    length, chains = draws.shape
    moments = float(draws.mean()), float(draws.std())
    if bool((draws == draws[0]).all()):
        return Diagnosis(name, length, chains, *moments, None, None, None)
    time = autocorrelation_time(draws) * steps_between
    return Diagnosis(name, length, chains, *moments, split_rhat(draws), bulk_effective_samples(draws), time)
