"""PGD against classifiers whose best attack is known on paper, and against torchattacks."""

import pytest
import torch
import torchattacks
from torch import Tensor

from attacks_eval.pgd import PGDConfig, pgd
from attacks_eval.threat_model import ThreatModel
from models.bundle import Bundle
from models.data import ImageDataset
from models.pixels import from_uint8, from_unit, to_unit

WEIGHTS = torch.randn(3 * 4 * 4, generator=torch.Generator().manual_seed(0))


def linear(x: Tensor) -> Tensor:
    """Two classes with logits (0, w x)."""
    score = x.flatten(1) @ WEIGHTS
    return torch.stack([torch.zeros_like(score), score], dim=1)


def test_on_a_linear_classifier_it_finds_the_best_corner() -> None:
    """The worst image of the ball is x + radius * sign(w) (label 0) or x - radius * sign(w) (label 1)."""
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    threat = ThreatModel(budget=8)
    generator = torch.Generator().manual_seed(2)
    adversarial = pgd(linear, images, labels, threat, PGDConfig(steps=20, attack_step=2), generator)
    direction = torch.where(labels == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    best = images + 8 / 255 * direction * WEIGHTS.view(3, 4, 4).sign()
    assert torch.allclose(adversarial, best, atol=1e-6)


@pytest.mark.parametrize("budget", [0.0, 3.0, 200.0])
def test_never_leaves_the_ball_nor_the_unit_range(budget: float) -> None:
    images = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    threat = ThreatModel(budget=budget)
    generator = torch.Generator().manual_seed(4)
    adversarial = pgd(linear, images, torch.zeros(4, dtype=torch.long), threat, PGDConfig(attack_step=50), generator)
    assert (adversarial - images).abs().max() <= budget / 255 + 1e-6
    assert 0.0 <= adversarial.min() <= adversarial.max() <= 1.0


@pytest.mark.parametrize("images", [torch.full((1, 3, 4, 4), 1.5), torch.full((1, 3, 4, 4), -0.2)])
def test_images_outside_the_unit_range_raise(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        pgd(linear, images, torch.tensor([0]), ThreatModel(), PGDConfig(), torch.Generator())


def test_agrees_with_torchattacks(digits_bundle: Bundle, digits_test: ImageDataset) -> None:
    """Without a random start both are deterministic, and must be the same attack."""

    def classify(x: Tensor) -> Tensor:
        return digits_bundle.defence.classify(from_unit(x.clamp(0, 1)))

    class Module(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return classify(x)

    images, labels = to_unit(from_uint8(digits_test.images[:50])).clamp(0, 1), digits_test.labels[:50]
    theirs = torchattacks.PGD(Module(), eps=40 / 255, alpha=8 / 255, steps=10, random_start=False)(images, labels)
    config = PGDConfig(steps=10, attack_step=8, random_start=False)
    ours = pgd(classify, images, labels, ThreatModel(budget=40), config, torch.Generator())
    assert torch.allclose(ours, theirs, atol=1e-5)
