"""The Inception Score where it is known, and by a real network on real images."""

import math

import pytest
import torch

from models.data import ImageDataset
from models.errors import DataError
from models.evaluation.features import FeatureNetwork, load_efflite0
from models.evaluation.inception_score import classifier_score, inception_score

CPU = torch.device("cpu")


def test_all_alike_is_1_and_all_classes_evenly_is_their_number() -> None:
    assert inception_score(torch.randn(1, 7).expand(50, 7)).value == pytest.approx(1.0)
    sure = 100.0 * torch.eye(5).repeat(20, 1)
    found = inception_score(sure)
    assert found.value == pytest.approx(5.0)
    assert found.standard_error == pytest.approx(0.0)


def test_unsure_answers_score_what_the_mutual_information_says() -> None:
    """Two classes, each answer 0.8 : 0.2 for its own: exp(ln 2 - H(0.8))."""
    p = torch.tensor([[0.8, 0.2], [0.2, 0.8]]).repeat(30, 1)
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert inception_score(p.log() + 3.0, splits=3).value == pytest.approx(2.0 * math.exp(-entropy))


def test_few_images_are_refused_and_a_network_without_a_classifier_has_no_score() -> None:
    with pytest.raises(DataError, match=r"at least 20 images, got shape \(19, 3\)"):
        inception_score(torch.zeros(19, 3))
    silent = FeatureNetwork("Toy", "", torch.nn.Identity(), CPU)
    assert classifier_score(silent, torch.zeros(20, 3), torch.zeros(20, 3)) is None


def test_the_head_of_efflite0_is_its_own_and_photographs_are_more_various_than_one(
    cifar10_test: ImageDataset,
) -> None:
    network = load_efflite0(CPU)
    images = cifar10_test.images[:40]
    features = network.features(images)
    whole = network.module.network
    assert network.head is not None
    with torch.no_grad():
        pixels = torch.nn.functional.interpolate(images[:4].float(), (96, 96), mode="bilinear", antialias=True)
        assert torch.allclose(network.head(features[:4]), whole((pixels - 127) / 128), atol=1e-4)
    flipped = features[:1].expand(40, -1)
    score = classifier_score(network, flipped, features)
    assert score is not None
    assert score.name == "IS-EffLite0"
    assert score.samples.value == pytest.approx(1.0)
    assert score.floor.value > 1.5
