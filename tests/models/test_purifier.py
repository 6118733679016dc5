import pytest
import torch
from torch import Tensor, nn

from models.bundle import Bundle
from models.data import ImageDataset
from models.evaluation.accuracy import Accuracy, purified_logits
from models.noise import SeededNoise
from models.pixels import Normalisation, from_uint8
from models.purifier import Preset, PurifiedClassifier, agreement, replicate, split_replicates

PRESET = Preset(num_steps=3, step_size=0.1, temperature=0.5, replicates=4)


class Bowl(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).square().sum(1) / 2


class Sums(nn.Module):
    """Logits are the channel sums."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=(2, 3))


@pytest.fixture
def defence() -> PurifiedClassifier:
    return PurifiedClassifier(Bowl(), Sums(), Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3), PRESET)


def test_replicates_are_whole_copies_and_split_back() -> None:
    x = torch.arange(6.0).view(3, 2)
    copies = replicate(x, 4)
    assert torch.equal(copies, torch.cat([x, x, x, x]))
    assert torch.equal(split_replicates(copies, 4), x.expand(4, 3, 2))


def test_forward_is_classify_after_purify_averaged_over_replicates(defence: PurifiedClassifier) -> None:
    x = torch.randn(2, 3, 4, 4)
    noise = SeededNoise(torch.Generator().manual_seed(0))
    chains = defence.purify(replicate(x, 4), randn_like=noise)
    expected = split_replicates(defence.classify(chains), 4).mean(0)
    again = defence(x, randn_like=SeededNoise(torch.Generator().manual_seed(0)))
    assert torch.allclose(again, expected)


def test_zero_steps_make_the_defence_the_bare_classifier(defence: PurifiedClassifier) -> None:
    x = torch.randn(2, 3, 4, 4)
    none = PRESET.model_copy(update={"num_steps": 0})
    assert torch.allclose(defence(x, none), defence.classify(x), atol=1e-5)


def test_more_replicates_shrink_the_spread_by_their_root(defence: PurifiedClassifier) -> None:
    x = torch.zeros(500, 3, 2, 2)

    def spread(replicates: int) -> float:
        noise = SeededNoise(torch.Generator().manual_seed(replicates))
        return float(defence(x, PRESET.model_copy(update={"replicates": replicates}), noise).std())

    assert spread(1) / spread(16) == pytest.approx(4.0, rel=0.1)


def test_agreement_is_the_share_of_votes_for_the_mean() -> None:
    logits = torch.tensor([[[5.0, 0.0]], [[5.0, 0.0]], [[0.0, 1.0]], [[5.0, 0.0]]])
    assert agreement(logits).tolist() == [0.75]


def test_a_classifier_of_another_size_sees_resized_images() -> None:
    defence = PurifiedClassifier(Bowl(), Sums(), Normalisation(mean=(0.5,), std=(0.5,)), PRESET, (8, 8))
    assert defence.classify(torch.full((1, 1, 4, 4), 0.25)).item() == pytest.approx(64 * 0.25, rel=1e-5)


def test_the_networks_are_frozen(defence: PurifiedClassifier, digits_bundle: Bundle) -> None:
    assert not any(parameter.requires_grad for parameter in digits_bundle.defence.parameters())
    assert not digits_bundle.defence.classifier.training


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_match_published_ones(correct: int, total: int, low: float, high: float) -> None:
    assert Accuracy(correct, total).interval == pytest.approx((low, high), abs=5e-5)


def test_evaluation_repeats_for_a_seed_and_counts_every_image(digits_bundle: Bundle, digits_test: ImageDataset) -> None:
    images = from_uint8(digits_test.images[:30])
    preset = Preset(num_steps=5, step_size=0.06, temperature=1e-3, replicates=5)
    done: list[int] = []
    first = purified_logits(digits_bundle.defence, images, preset, 3, done.append)
    assert first.shape == (5, 30, 10)
    assert sum(done) == 5 * 30 * 5
    assert torch.equal(first, purified_logits(digits_bundle.defence, images, preset, 3))
    assert not torch.equal(first, purified_logits(digits_bundle.defence, images, preset, 4))


def test_purification_restores_the_digits_that_an_attack_took(digits_bundle: Bundle, digits_test: ImageDataset) -> None:
    """Heavy noise in place of an attack: the purified digits are classified much better than the noisy ones."""
    generator = torch.Generator().manual_seed(0)
    noisy = from_uint8(digits_test.images)
    noisy = noisy + 0.9 * torch.randn(noisy.shape, generator=generator)
    bundle = digits_bundle.manifest.presets["balanced"]
    bare = (digits_bundle.defence.classify(noisy).argmax(1) == digits_test.labels).float().mean()
    logits = purified_logits(digits_bundle.defence, noisy, bundle, seed=0).mean(0)
    purified = (logits.argmax(1) == digits_test.labels).float().mean()
    assert purified > bare + 0.05
