"""Diagnostics of chains against processes whose autocorrelation and stationary distribution are known."""

import math

import pytest
import torch
from scipy import signal
from torch import Tensor

from models.evaluation.chain_diagnostics import (
    autocorrelation_time,
    autocovariance,
    bulk_effective_samples,
    diagnose,
    effective_samples,
    rank_normalise,
    split_chains,
    split_rhat,
)


def autoregressive(coefficient: float, length: int, chains: int, seed: int = 0) -> Tensor:
    """x_t = a x_{t-1} + sqrt(1 - a^2) z, stationary N(0, 1): autocorrelation a^t, time (1 + a) / (1 - a)."""
    noise = torch.randn(length, chains, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise[1:] *= math.sqrt(1 - coefficient**2)
    return torch.from_numpy(signal.lfilter([1.0], [1.0, -coefficient], noise.numpy(), axis=0))


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.9, -0.5])
def test_autocorrelation_time_of_an_autoregression(coefficient: float) -> None:
    draws = autoregressive(coefficient, 4000, 16)
    expected = (1 + coefficient) / (1 - coefficient)
    assert autocorrelation_time(draws) == pytest.approx(expected, rel=0.1)
    assert bulk_effective_samples(draws) == pytest.approx(draws.numel() / expected, rel=0.1)
    assert split_rhat(draws) == pytest.approx(1.0, abs=0.01)


def test_the_effective_size_predicts_the_spread_of_means() -> None:
    """The variance of a mean over T draws of one chain is 1 / (effective size): here over 400 separate chains."""
    draws = autoregressive(0.8, 1000, 400)
    each = torch.tensor([effective_samples(draws[:, [chain]]) for chain in range(100)])
    assert float(draws.mean(0).var()) == pytest.approx(1 / float(each.mean()), rel=4 * math.sqrt(2 / 400))


def test_autocovariance_is_the_sum_that_it_says() -> None:
    draws = autoregressive(0.3, 7, 3)
    centred = draws - draws.mean(0)
    for lag in range(7):
        expected = (centred[: 7 - lag] * centred[lag:]).sum(0) / 7
        assert torch.allclose(autocovariance(draws)[lag], expected)


def test_chains_in_different_places_are_seen() -> None:
    draws = autoregressive(0.5, 1000, 8)
    apart = draws + torch.arange(8) * 2.0
    assert split_rhat(apart) > 2
    assert bulk_effective_samples(apart) < 20


def test_chains_of_different_spread_are_seen_by_folding_alone() -> None:
    """Equal means: the unfolded ranks agree, the distances from the median do not."""
    draws = autoregressive(0.0, 2000, 8) * torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 10])
    halves = rank_normalise(split_chains(draws))
    unfolded = math.sqrt(1 + float(halves.mean(0).var() / halves.var(0).mean()))
    assert unfolded < 1.01
    assert split_rhat(draws) > 1.05


def test_a_drift_is_seen_although_chains_agree() -> None:
    """All chains climb together: only their halves differ."""
    draws = autoregressive(0.0, 1000, 4) + torch.linspace(0, 3, 1000, dtype=torch.float64)[:, None]
    assert split_rhat(draws) > 1.2


def test_ranks_see_through_heavy_tails() -> None:
    """Cauchy draws have no variance; their ranks are those of any other independent draws."""
    uniform = torch.rand(2000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cauchy = torch.tan(math.pi * (uniform - 0.5))
    assert torch.equal(rank_normalise(cauchy), rank_normalise(uniform))
    assert bulk_effective_samples(cauchy) == pytest.approx(8000, rel=0.1)


def test_ties_share_their_mean_rank() -> None:
    draws = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    ranks = torch.tensor([[1.0, 4.0], [2.5, 2.5]])
    assert torch.allclose(rank_normalise(draws), torch.special.ndtri((ranks - 0.375) / 4.25).double())


def test_a_diagnosis_is_in_steps_and_knows_constants() -> None:
    trace = torch.stack([autoregressive(0.9, 2000, 16), torch.ones(2000, 16, dtype=torch.float64)], dim=2)
    moving, constant = diagnose(trace, ("energy", "constant"), steps_between=50)
    assert moving.autocorrelation_time == pytest.approx(50 * 19, rel=0.15)
    assert (moving.name, moving.draws, moving.chains) == ("energy", 2000, 16)
    assert constant.as_json()["rhat"] is None
    assert diagnose(trace[:7], ("energy", "constant"), steps_between=50) == []
