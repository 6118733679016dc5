"""Certification of classifiers whose smoothed version, and so whose exact radius, is known on paper."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from attacks_eval.certify import CertifyConfig, ImageCertificate, Predict, certified_accuracy, certify_image
from models.certificate import certify_counts, lower_bound, successes_needed
from models.langevin import LangevinConfig, run_langevin
from models.streams import ChainNoise, Stream

SHAPE = (1, 2, 2)
NORMAL = torch.tensor([1.0, -2.0, 3.0, 0.5])
NORMAL = NORMAL / NORMAL.norm()
SEED = Stream((0, "certify"))


def linear(x: Tensor, streams: Sequence[Stream]) -> Tensor:
    """Class 1 on the side of the hyperplane through the middle grey that its normal points to."""
    return ((x - 0.5).flatten(1) @ NORMAL > 0).long()


def at_distance(distance: float) -> Tensor:
    """An image that far from the hyperplane, on the side of class 1."""
    return 0.5 + distance * NORMAL.view(SHAPE)


def random_class(probabilities: Sequence[float]) -> Predict:
    """A base classifier that ignores the image: a class of the given probabilities, from the chain's stream."""
    edges = torch.tensor(probabilities).cumsum(0)

    def predict(x: Tensor, streams: Sequence[Stream]) -> Tensor:
        return torch.stack([(stream.uniform(()) > edges[:-1]).sum() for stream in streams])

    return predict


def spread_of_radius(share: float, draws: int) -> float:
    """The standard deviation of Phi^-1(successes / draws) at that share of successes."""
    density = NormalDist().pdf(NormalDist().inv_cdf(share))
    return math.sqrt(share * (1 - share) / draws) / density


@pytest.mark.parametrize("distance", [0.05, 0.1, 0.3])
def test_a_linear_classifier_is_certified_just_short_of_its_distance(distance: float) -> None:
    """Its smoothed version has the same hyperplane, so the exact radius is |w x + b| / |w|."""
    config = CertifyConfig(sigma=0.2, estimation=10_000)
    result = certify_image(linear, at_distance(distance), 1, config, SEED, batch=2000)
    assert result.certificate.prediction == 1
    spread = config.sigma * spread_of_radius(NormalDist().cdf(distance / config.sigma), config.estimation)
    assert distance - 6.5 * spread < result.certificate.radius < distance  # the bound takes 3.1 of them


def test_no_more_than_alpha_of_the_radii_exceed_the_distance() -> None:
    config = CertifyConfig(sigma=0.2, selection=20, estimation=100, alpha=0.1)
    images = 400
    results = [certify_image(linear, at_distance(0.12), 1, config, SEED.child(i), 120) for i in range(images)]
    too_far = sum(result.certificate.radius > 0.12 for result in results)
    assert 0.04 * images < too_far <= (0.1 + 3 * math.sqrt(0.1 * 0.9 / images)) * images


@pytest.mark.parametrize("temperature", [0.05, 0.25])
def test_the_noise_of_the_chains_counts_like_that_of_the_smoothing(temperature: float) -> None:
    """Langevin chains in a bowl, U = |x|^2 / 2, are linear: x_K = c x_0 + noise, so the smoothed probability is known.

    With a = step_size^2 / (2 T) and c = (1 - a)^K, the noise has variance step_size^2 (1 - c^2) / (1 - (1 - a)^2).
    """
    chain = LangevinConfig(num_steps=5, step_size=0.1, temperature=temperature)

    def purified(x: Tensor, streams: Sequence[Stream]) -> Tensor:
        noise = ChainNoise(streams).sequence()
        state, _ = run_langevin(lambda y: y.flatten(1).square().sum(1) / 2, 2 * x - 1, chain, randn_like=noise)
        return linear((state + 1) / 2, streams)

    kept = 1 - chain.step_size**2 / (2 * chain.temperature)
    c = kept**chain.num_steps
    variance = chain.step_size**2 * (1 - c**2) / (1 - kept**2) / 4  # in [0, 1] units
    config, distance = CertifyConfig(sigma=0.1, estimation=6000), 0.1
    z = c * distance / math.sqrt(c**2 * config.sigma**2 + variance)
    result = certify_image(purified, at_distance(distance), 1, config, SEED, batch=2000)
    share = NormalDist().cdf(z)
    successes, spread = config.estimation * share, math.sqrt(config.estimation * share * (1 - share))
    assert abs(result.certificate.successes - successes) < 3.5 * spread
    assert result.certificate.radius < config.sigma * z < 0.95 * distance


def test_an_image_on_the_boundary_gets_an_abstention() -> None:
    results = [
        certify_image(linear, at_distance(0.0), label, CertifyConfig(sigma=0.2), SEED, batch=256) for label in (0, 1)
    ]
    assert [result.certificate.prediction for result in results] == [None, None]
    assert [count.correct for count in certified_accuracy(results, [0.0])] == [0]


@pytest.mark.parametrize("probabilities", [(0.1, 0.9), (0.5, 0.5), (0.3, 0.4, 0.3)])
def test_the_batch_changes_nothing(probabilities: tuple[float, ...]) -> None:
    config, predict = CertifyConfig(sigma=0.1, selection=50, estimation=300), random_class(probabilities)
    results = [certify_image(predict, at_distance(0.1), 1, config, SEED, batch) for batch in (1, 7, 64, 1000)]
    assert all(result == results[0] for result in results)
    assert results[0] != certify_image(predict, at_distance(0.1), 1, config, SEED.child("other"), 64)


def test_every_draw_is_counted_once_and_has_its_own_noise() -> None:
    """The noise is N(0, sigma^2), unclipped, and unlike the chain's stream."""
    seen: list[Tensor] = []
    chains: list[Tensor] = []
    answers: list[Tensor] = []

    def predict(x: Tensor, streams: Sequence[Stream]) -> Tensor:
        seen.append(x)
        chains.append(torch.stack([stream.normal(SHAPE) for stream in streams]))
        answers.append(linear(x, streams))
        return answers[-1]

    config, image = CertifyConfig(sigma=0.5, selection=130, estimation=2000), at_distance(0.4)
    result = certify_image(predict, image, 1, config, SEED, batch=64)
    labels = torch.cat(answers)
    assert len(labels) == 2130
    assert result.drawn == 2000
    assert result.selection == tuple(labels[:130].bincount().tolist())
    assert sum(result.selection) == 130
    assert result.certificate.successes == int((labels[130:] == 1).sum())
    noise = (torch.cat(seen) - image) / config.sigma
    assert len(noise.flatten(1).unique(dim=0)) == 2130
    assert float(noise.mean()) == pytest.approx(0.0, abs=4 / math.sqrt(noise.numel()))
    assert float(noise.std()) == pytest.approx(1.0, abs=4 / math.sqrt(2 * noise.numel()))
    correlation = float((noise * torch.cat(chains)).mean())
    assert correlation == pytest.approx(0.0, abs=4 / math.sqrt(noise.numel()))


def test_it_stops_when_the_bound_can_no_longer_pass_one_half() -> None:
    """At the first failure too many, with the answer that all the draws would have given."""
    config = CertifyConfig(sigma=0.1, estimation=400)
    labels: list[Tensor] = []

    def predict(x: Tensor, streams: Sequence[Stream]) -> Tensor:
        labels.append(random_class((0.3, 0.4, 0.3))(x, streams))
        return labels[-1]

    result = certify_image(predict, at_distance(0.1), 1, config, SEED, batch=10)
    failures = result.drawn - result.certificate.successes
    assert failures == config.estimation - successes_needed(config.estimation) + 1
    assert result.drawn < config.estimation == result.certificate.draws
    assert sum(map(len, labels)) - config.selection - result.drawn < 10
    assert result.certificate.prediction is None
    best = result.certificate.successes + config.estimation - result.drawn
    assert lower_bound(best, config.estimation) <= 0.5


def test_too_few_estimation_draws_to_certify_anything_end_after_the_first() -> None:
    """Nine draws cannot certify at alpha 0.001, even when all agree."""
    config = CertifyConfig(sigma=0.1, estimation=9)
    assert config.largest_radius == 0.0
    result = certify_image(linear, at_distance(0.3), 1, config, SEED, batch=4)
    assert (result.certificate.prediction, result.drawn) == (None, 1)


def test_an_image_where_all_draws_agree_gets_the_largest_radius() -> None:
    config = CertifyConfig(sigma=0.02)
    result = certify_image(linear, at_distance(0.4), 1, config, SEED, batch=500)
    assert result.certificate.successes == result.drawn == config.estimation
    assert result.certificate.radius == config.largest_radius
    assert config.largest_radius == pytest.approx(0.02 * NormalDist().inv_cdf(0.001 ** (1 / 1000)), rel=1e-9)


def test_certified_accuracy_counts_right_predictions_that_reach_the_radius() -> None:
    def image(label: int, successes: int) -> ImageCertificate:
        return ImageCertificate(label, certify_counts([0, 9], successes, 1000, 1.0), (0, 9), 1000)

    images = [image(1, 1000), image(1, 900), image(1, 500), image(0, 1000)]
    middle = images[1].certificate.radius
    curve = certified_accuracy(images, [0.0, middle, math.nextafter(middle, 9), 2.0, 9.0])
    assert [point.correct for point in curve] == [2, 2, 1, 1, 0]
    assert {point.total for point in curve} == {4}


def test_what_makes_no_sense_is_refused() -> None:
    config = CertifyConfig(sigma=0.1)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        certify_image(linear, at_distance(3.0), 1, config, SEED, batch=10)
    with pytest.raises(ValueError, match=r"int64 labels \[10\], got torch.float32 \[10, 1, 2, 2\]"):
        certify_image(lambda x, streams: x, at_distance(0.1), 1, config, SEED, batch=10)
    with pytest.raises(ValueError, match="at least 1 certificate"):
        certified_accuracy([], [0.0])
