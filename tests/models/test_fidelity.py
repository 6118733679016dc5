"""Fréchet distance, KID, precision and recall against what they must be on paper."""

import pytest
import torch
from torch import Tensor

from models.errors import DataError
from models.evaluation.fidelity import Gaussian, frechet_distance, kernel_distance, precision_recall, score


def normal(seed: int, count: int, size: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_frechet_distance_of_diagonal_gaussians() -> None:
    """|m - n|^2 + sum (s - t)^2 for standard deviations s, t."""
    m, n = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.0, 1.0, 0.5]).double()
    s, t = torch.tensor([1.0, 0.0, 3.0]).double(), torch.tensor([2.0, 0.5, 0.1]).double()
    expected = float((m - n).square().sum() + (s - t).square().sum())
    assert frechet_distance(Gaussian(m, s.diag()), Gaussian(n, t.diag())) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    """In two dimensions tr (A B)^(1/2) = sqrt(tr(A B) + 2 sqrt(det A det B))."""
    a, b = (torch.tensor(rows).double() for rows in ([[2.0, 1.0], [1.0, 3.0]], [[4.0, -1.5], [-1.5, 1.0]]))
    assert not torch.allclose(a @ b, b @ a)
    trace = ((a @ b).trace() + 2 * (a.det() * b.det()).sqrt()).sqrt()
    expected = float(a.trace() + b.trace() - 2 * trace)
    roots = [torch.linalg.cholesky(c).T for c in (a, b)]
    zero = torch.zeros(2).double()
    found = frechet_distance(*(Gaussian(zero, root) for root in roots))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [8, 300], ids=["fewer images than features", "more"])
def test_the_fitted_gaussian_has_the_sample_covariance(count: int) -> None:
    features = normal(0, count, 20) @ normal(1, 20, 20) + 5
    fitted = Gaussian.fit(features)
    assert torch.allclose(fitted.mean, features.mean(0))
    assert torch.allclose(fitted.root.T @ fitted.root, features.T.cov())


def test_frechet_distance_is_invariant_and_zero_at_itself() -> None:
    """Shifting both, or turning both, changes nothing; shifting one adds the shift's square."""
    x, y = normal(0, 50, 30, 10.0), normal(1, 70, 30)
    turn, _ = torch.linalg.qr(normal(2, 30, 30))
    distance = frechet_distance(Gaussian.fit(x), Gaussian.fit(y))
    assert frechet_distance(Gaussian.fit(y @ turn + 3), Gaussian.fit(x @ turn + 3)) == pytest.approx(distance)
    fit = Gaussian.fit(x)
    assert frechet_distance(fit, fit) < 1e-9 * float(fit.root.square().sum())
    assert frechet_distance(fit, Gaussian.fit(x + 2.0)) == pytest.approx(4.0 * 30)


def test_kid_is_unbiased_on_equal_distributions() -> None:
    """Its mean over repetitions is zero within errors, and its standard error is what the repetitions show."""
    estimates = [kernel_distance(normal(n, 100, 4), normal(1000 + n, 100, 4)) for n in range(300)]
    values = torch.tensor([estimate.value for estimate in estimates])
    assert abs(float(values.mean())) < 3 * float(values.std()) / 300**0.5
    claimed = torch.tensor([estimate.standard_error or 0.0 for estimate in estimates]).square().mean().sqrt()
    assert float(claimed) == pytest.approx(float(values.std()), rel=0.15)


def test_kid_of_shifted_points_has_its_closed_form() -> None:
    """One feature, x all at 0 and y all at 1: 1 + (1 + 1)^3 - 2 = 7."""
    found = kernel_distance(torch.zeros(40, 1), torch.ones(40, 1))
    assert found.value == pytest.approx(7.0)
    assert found.standard_error == pytest.approx(0.0, abs=1e-12)


def test_kid_sees_a_difference_in_variance_alone() -> None:
    found = kernel_distance(normal(0, 400, 8), normal(1, 400, 8, 1.5))
    assert found.standard_error is not None
    assert found.value > 5 * found.standard_error


def test_precision_and_recall_on_a_line() -> None:
    """Real points 0 .. 9 reach to 3 at the ends and 2 within: their manifold is [-3, 12]."""
    real = torch.arange(10.0)[:, None]
    outside = torch.tensor([-3.5, -3.2, 12.2, 12.5])[:, None]
    inside = torch.tensor([-2.9, 0.5, 4.4, 6.6, 8.1, 11.9])[:, None]
    precision, _ = precision_recall(torch.cat([inside, outside]), real)
    assert precision.value == 0.6
    assert precision.interval == pytest.approx((0.3127, 0.8318), abs=1e-4), "Wilson's for 6 of 10"


def test_collapsed_samples_are_precise_and_recall_nothing() -> None:
    real = normal(0, 200, 2)
    collapsed = 1e-3 * normal(1, 200, 2)
    precision, recall = precision_recall(collapsed, real)
    assert precision.value == 1.0
    assert recall.value < 0.05
    # Exchanged, the two change places.
    assert precision_recall(real, collapsed)[0].value == recall.value


def test_far_samples_have_neither_and_the_same_ones_both() -> None:
    real = normal(0, 60, 3)
    assert [e.value for e in precision_recall(real + 100, real)] == [0.0, 0.0]
    assert [e.value for e in precision_recall(real, real.flip(0))] == [1.0, 1.0]


def test_precision_does_not_depend_on_how_distances_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = precision_recall(normal(0, 90, 5, 1.3), normal(1, 90, 5))
    monkeypatch.setattr("models.evaluation.fidelity.ROWS", 7)
    assert precision_recall(normal(0, 90, 5, 1.3), normal(1, 90, 5)) == whole


def test_scores_name_the_network_and_stand_beside_their_floor() -> None:
    reference, held_out = normal(0, 200, 6), normal(1, 200, 6)
    scores = score("Net", "FD-Net", normal(2, 200, 6) + 1, reference, held_out)
    assert [each.name for each in scores] == ["FD-Net", "KID-Net", "Precision-Net", "Recall-Net"]
    frechet, kid, precision, recall = scores
    assert frechet.floor.value == frechet_distance(Gaussian.fit(held_out), Gaussian.fit(reference))
    assert frechet.samples.value == pytest.approx(6.0, rel=0.2)
    assert kid.floor == kernel_distance(held_out, reference)
    for share in (precision, recall):
        assert share.floor.value > 0.8 > share.samples.value
    assert {each.count for each in scores} == {200}
    assert f"floor {frechet.floor.value:.2f}" in str(frechet)


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        (normal(0, 10, 6), r"at least 20, got shapes \(10, 6\) and \(30, 6\)"),
        (normal(0, 40, 6), r"as many features.*\(40, 6\) and \(30, 6\)"),
        (normal(0, 30, 6).index_fill(0, torch.tensor([4]), float("nan")), "image 4 of 30 are not finite"),
        (normal(0, 30, 6)[None], r"\[N, D\].*\(1, 30, 6\)"),
    ],
)
def test_bad_features_are_refused(samples: Tensor, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        score("Net", "FD-Net", samples, normal(1, 30, 6), normal(2, 30, 6))
