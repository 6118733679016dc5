"""Detection's statistics against scikit-learn, closed forms and the bootstrap's own theory."""

import math

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from models.evaluation.detection_statistics import auroc, detection, tpr_at_fpr


def normal(seed: int, count: int, mean: float = 0.0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


@pytest.mark.parametrize("levels", [None, 10, 2], ids=["no ties", "many ties", "two values"])
def test_auroc_is_that_of_scikit_learn(levels: int | None) -> None:
    usual, unusual = normal(0, 300), normal(1, 170, mean=0.7)
    if levels:
        usual, unusual = (values.clamp(-3, 3).mul(levels / 6).round() for values in (usual, unusual))
    expected = roc_auc_score([0] * 300 + [1] * 170, torch.cat([usual, unusual]).numpy())
    assert auroc(usual, unusual) == pytest.approx(expected, abs=1e-12)
    assert auroc(unusual, usual) == pytest.approx(1 - expected, abs=1e-12)


def test_auroc_of_two_gaussians_is_the_closed_form() -> None:
    """Phi(d / sqrt 2), at quantiles that leave no sampling error."""
    grid = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    usual = torch.special.ndtri(grid)
    for d in (0.0, 0.5, 1.0, 2.0):
        expected = 0.5 * (1 + math.erf(d / 2))  # Phi(d / sqrt 2)
        assert auroc(usual, usual + d) == pytest.approx(expected, abs=1e-3)


def spaced(count: int, mean: float = 0.0) -> Tensor:
    """A normal sample without sampling error: its quantiles."""
    return torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count) + mean


@pytest.mark.parametrize("levels", [None, 10], ids=["no ties", "many ties"])
def test_every_statistic_is_that_of_scikit_learn(levels: int | None) -> None:
    usual, unusual = normal(0, 300), normal(1, 170, mean=0.7)
    if levels:
        usual, unusual = (values.clamp(-3, 3).mul(levels / 6).round() for values in (usual, unusual))
    values, is_unusual = torch.cat([usual, unusual]).numpy(), [0] * 300 + [1] * 170
    is_usual = [1 - each for each in is_unusual]
    wrong, found, _ = roc_curve(is_usual, -values, drop_intermediate=False)
    expected = {
        "auroc": roc_auc_score(is_unusual, values),
        "aupr_unusual": average_precision_score(is_unusual, values),
        "aupr_usual": average_precision_score(is_usual, -values),
        "fpr_at_95": min(wrong[found >= 0.95]),
    }
    measured = detection(usual, unusual)
    assert (measured.usual, measured.unusual) == (300, 170)
    for name, value in expected.items():
        estimate = getattr(measured, name)
        assert estimate.value == pytest.approx(value, abs=1e-5)
        assert estimate.low < estimate.value < estimate.high


def test_fpr_at_95_of_two_gaussians_is_the_closed_form() -> None:
    """Phi(z - d), with z the 95 % quantile."""
    for d in (0.0, 1.0, 2.0):
        found = detection(spaced(1000), spaced(1000, mean=d)).fpr_at_95
        assert found.value == pytest.approx(0.5 * (1 + math.erf((1.644854 - d) / math.sqrt(2))), abs=3e-3)


def test_the_interval_of_chance_has_the_width_of_mann_and_whitney() -> None:
    """Under one distribution the AUROC has the variance (n + m + 1) / (12 n m)."""
    n, m = 240, 120
    found = detection(spaced(n), spaced(m)).auroc
    error = math.sqrt((n + m + 1) / (12 * n * m))
    assert found.value == pytest.approx(0.5, abs=1e-3)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert (found.low + found.high) / 2 == pytest.approx(0.5, abs=0.2 * error)


def test_the_interval_away_from_chance_has_the_width_of_delong() -> None:
    """The variance is that of each usual image's share of unusual ones above it over N, and the other way round."""
    usual, unusual = spaced(300), 2 * spaced(200, mean=0.6)
    above = (unusual[:, None] > usual).double()
    error = math.sqrt(float(above.mean(0).var() / 300 + above.mean(1).var() / 200))
    found = detection(usual, unusual).auroc
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_kinds_that_do_not_overlap_are_not_told_apart_for_certain() -> None:
    """Wilson's interval for all of the 50 pairs that the smaller kind makes: n / (n + z^2) to 1."""
    apart = detection(torch.arange(200.0), torch.arange(1000.0, 1050.0))
    lowest = round(50 / (50 + 1.959964**2), 5)
    for statistic in (apart.auroc, apart.aupr_unusual, apart.aupr_usual):
        assert (statistic.low, statistic.value, statistic.high) == (lowest, 1.0, 1.0)
    assert (apart.fpr_at_95.low, apart.fpr_at_95.value) == (0.0, 0.0)
    assert apart.fpr_at_95.high == pytest.approx(1 - lowest)


def test_auroc_of_equal_values_is_chance() -> None:
    assert auroc(torch.zeros(7), torch.zeros(3)) == 0.5
    assert auroc(torch.zeros(7), torch.ones(3)) == 1.0
    assert auroc(torch.ones(7), torch.zeros(3)) == 0.0


@pytest.mark.parametrize(
    ("usual", "unusual", "fpr", "expected"),
    [
        (range(100), [98, 98.5, 99, 100], 0.01, 0.75),  # the threshold is 98: only 99 is flagged
        (range(99), [97, 97.5, 98, 100], 0.01, 0.25),  # 1 of 99 is more than 1 %: none may be flagged
        (range(199), [197, 197.5, 198, 200], 0.01, 0.75),  # 1 of 199 may, 2 may not
        ([0] * 98 + [5, 5], [5, 6], 0.01, 0.5),  # flagging one 5 would flag the other
        ([0] * 98 + [5, 5], [5, 6], 0.02, 1.0),
        ([1], [0, 1, 2], 0.01, 1 / 3),
        (range(100), [70, 70.5], 0.29, 0.5),  # 29 may be flagged, though 0.29 * 100 is less than 29 in floating point
        (range(10), [9, 9.5], 0.0, 0.5),
    ],
)
def test_tpr_never_flags_more_usual_images_than_allowed(
    usual: list[float], unusual: list[float], fpr: float, expected: float
) -> None:
    values = torch.tensor(list(usual)).float()
    assert tpr_at_fpr(values, torch.tensor(unusual).float(), fpr) == pytest.approx(expected)
    assert tpr_at_fpr(values, values, fpr) <= fpr


@pytest.mark.parametrize("wrong", [torch.tensor([1.0, math.nan]), torch.tensor([math.inf]), torch.empty(0)])
def test_values_that_are_not_numbers_raise(wrong: Tensor) -> None:
    for measure in (auroc, tpr_at_fpr):
        with pytest.raises(ValueError, match="finite values"):
            measure(wrong, torch.ones(2))
        with pytest.raises(ValueError, match="finite values"):
            measure(torch.ones(2), wrong)
    with pytest.raises(ValueError, match=r"fpr must be in \[0, 1\)"):
        tpr_at_fpr(torch.ones(2), torch.ones(2), 1.0)
