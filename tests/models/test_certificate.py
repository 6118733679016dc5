"""The statistics of randomised smoothing against closed forms, scipy and exact coverage."""

import math
import subprocess
import sys
from statistics import NormalDist

import pytest
import torch
from scipy import stats

from models.certificate import (
    binomial_tail,
    certified_radius,
    certify_counts,
    certify_logits,
    clopper_pearson,
    largest_radius,
    lower_bound,
    successes_needed,
)

GRID = [(k, n) for n in (1, 2, 10, 100, 1000) for k in sorted({0, 1, n // 3, n // 2, n - 1, n})] + [(99_000, 100_000)]


@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.001, 1e-9])
@pytest.mark.parametrize("draws", [1, 10, 1000, 100_000])
def test_without_a_failure_the_bound_is_a_root_of_alpha(draws: int, alpha: float) -> None:
    assert lower_bound(draws, draws, alpha) == pytest.approx(alpha ** (1 / draws), rel=1e-12)
    assert lower_bound(0, draws, alpha) == 0.0
    assert lower_bound(1, draws, alpha) == pytest.approx(-math.expm1(math.log1p(-alpha) / draws), rel=1e-8)


@pytest.mark.parametrize("alpha", [0.3, 0.05, 0.001, 1e-6])
def test_bounds_are_the_quantiles_of_scipy(alpha: float) -> None:
    for k, n in GRID:
        assert lower_bound(k, n, alpha) == pytest.approx(stats.beta.ppf(alpha, k, n - k + 1) if k else 0.0, rel=1e-8)
        theirs = stats.binomtest(k, n).proportion_ci(1 - alpha, method="exact")
        assert clopper_pearson(k, n, alpha) == pytest.approx((theirs.low, theirs.high), rel=1e-8)


def test_the_tail_is_scipys() -> None:
    for k, n in GRID:
        for p in (1e-6, 0.1, 0.5, 0.99):
            assert binomial_tail(k, n, p) == pytest.approx(stats.binom.sf(k - 1, n, p), rel=1e-8, abs=1e-300)


@pytest.mark.parametrize("draws", [7, 60])
@pytest.mark.parametrize("alpha", [0.1, 0.001])
def test_coverage_is_at_least_the_confidence_at_every_probability(draws: int, alpha: float) -> None:
    """Exactly: the probability of the counts whose interval holds p, summed over all counts."""
    intervals = [clopper_pearson(k, draws, alpha) for k in range(draws + 1)]
    bounds = [lower_bound(k, draws, alpha) for k in range(draws + 1)]
    for p in torch.linspace(0.005, 0.995, 199).tolist():
        mass = stats.binom.pmf(range(draws + 1), draws, p)
        assert mass[[low <= p <= high for low, high in intervals]].sum() >= 1 - alpha - 1e-9
        assert mass[[bound <= p for bound in bounds]].sum() >= 1 - alpha - 1e-9


@pytest.mark.parametrize("p", [0.3, 0.55, 0.97])
def test_coverage_by_simulation(p: float) -> None:
    """Of 20000 simulated experiments at alpha 0.05, no more than 5 % (and 4 standard errors) may miss p."""
    counts = stats.binom.rvs(200, p, size=20_000, random_state=0)
    bounds = [lower_bound(k, 200, 0.05) for k in range(201)]
    intervals = [clopper_pearson(k, 200, 0.05) for k in range(201)]
    limit = 0.05 + 4 * math.sqrt(0.05 * 0.95 / 20_000)
    one_sided = sum(bounds[k] > p for k in counts) / 20_000
    assert 0.01 < one_sided <= limit  # discrete counts make it cautious, near 1 most
    assert sum(not intervals[k].low <= p <= intervals[k].high for k in counts) / 20_000 <= limit


@pytest.mark.parametrize("alpha", [0.2, 0.001])
def test_the_successes_needed_are_where_the_bound_passes_one_half(alpha: float) -> None:
    for draws in (1, 2, 9, 10, 11, 100, 1000):
        needed = successes_needed(draws, alpha)
        assert needed == draws + 1 or lower_bound(needed, draws, alpha) > 0.5
        assert lower_bound(needed - 1, draws, alpha) <= 0.5
    assert successes_needed(9) == 10  # 2^-9 > 0.001: nine draws never suffice


def test_the_paper_s_largest_radius() -> None:
    """Cohen et al., section 3.2.2: 100000 draws in agreement at alpha 0.001 certify about 3.8 sigma."""
    assert largest_radius(100_000, 1.0) == pytest.approx(3.8, abs=0.02)
    assert largest_radius(1000, 0.25) == pytest.approx(0.25 * stats.norm.ppf(0.001 ** (1 / 1000)), rel=1e-9)


def test_the_radius_is_a_quantile_in_units_of_sigma_and_zero_below_one_half() -> None:
    assert certified_radius(NormalDist().cdf(1.5), 0.5) == pytest.approx(0.75)
    assert [certified_radius(lower, 0.5) for lower in (0.5, 0.2, 0.0)] == [0.0, 0.0, 0.0]


def test_a_certificate_names_the_class_of_the_selection() -> None:
    certificate = certify_counts([3, 90, 7], successes=950, draws=1000, sigma=0.5)
    assert (certificate.top, certificate.prediction) == (1, 1)
    lower = stats.beta.ppf(0.001, 950, 51)
    assert certificate.radius == pytest.approx(0.5 * stats.norm.ppf(lower), rel=1e-8)
    assert certificate.as_json() == {
        "top": 1, "successes": 950, "draws": 1000, "sigma": 0.5, "alpha": 0.001,
        "lower": certificate.lower, "prediction": 1, "radius": certificate.radius,
    }  # fmt: skip


def test_half_of_the_draws_certify_nothing() -> None:
    certificate = certify_counts([0, 100], successes=500, draws=1000, sigma=0.5)
    assert (certificate.prediction, certificate.radius) == (None, 0.0)


def test_logits_are_certified_by_draws_that_did_not_choose_the_class() -> None:
    """Class 2 wins the selection 3 to 1; of the 50 other draws 48 answer it, 2 answer class 0."""
    labels = torch.tensor([2, 0, 2, 2] + [2] * 20 + [0, 0] + [2] * 28)
    logits = torch.nn.functional.one_hot(labels, 4) * 5.0 - 1.0
    certificate = certify_logits(logits, selection=4, sigma=0.25, alpha=0.01)
    assert certificate == certify_counts([1, 0, 3, 0], successes=48, draws=50, sigma=0.25, alpha=0.01)
    assert certificate.radius == pytest.approx(0.25 * stats.norm.ppf(stats.beta.ppf(0.01, 48, 3)), rel=1e-8)


def test_a_class_that_wins_only_the_selection_is_not_certified() -> None:
    logits = torch.eye(2)[[0, 0, 0] + [1] * 100]
    certificate = certify_logits(logits, selection=3, sigma=0.25)
    assert (certificate.top, certificate.successes, certificate.prediction, certificate.radius) == (0, 0, None, 0.0)


@pytest.mark.parametrize(("selection", "shape"), [(0, (5, 3)), (5, (5, 3)), (-1, (5, 3)), (2, (5,))])
def test_draws_that_cannot_be_divided_are_refused(selection: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"got {selection} and \[5"):
        certify_logits(torch.zeros(shape), selection, 0.25)


@pytest.mark.parametrize(
    ("successes", "draws", "alpha"), [(-1, 5, 0.1), (6, 5, 0.1), (0, 0, 0.1), (1, 5, 0.0), (1, 5, 1.0)]
)
def test_impossible_questions_are_refused(successes: int, draws: int, alpha: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        lower_bound(successes, draws, alpha)


def test_scipy_is_not_needed() -> None:
    code = "import sys, models.certificate as c; c.lower_bound(9, 10); assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
