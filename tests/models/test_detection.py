"""Scores of images under energies whose answer is known."""

import pytest
import torch
from torch import Tensor

from models.bundle import Bundle
from models.data import ImageDataset
from models.evaluation.detection import SCORES, respond, scores_of
from models.langevin import LangevinConfig, run_langevin
from models.pixels import from_uint8
from models.precision import Precision


def test_scores_of_a_quadratic_energy_are_closed_forms() -> None:
    """U = |x|^2 / 2 has the gradient x; 100 images take several batches."""
    images = torch.randn(100, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    done: list[int] = []
    response = respond(lambda x: x.flatten(1).square().sum(1) / 2, images, "float32", done.append)
    squares = images.flatten(1).square().sum(1)
    assert torch.allclose(response.energy, squares / 2)
    assert torch.allclose(response.gradient_norm, squares.sqrt())
    assert sum(done) == 100
    scores = scores_of(response, mean=24.0)
    assert tuple(scores) == SCORES
    assert torch.allclose(scores["typicality"], (squares.double() / 2 - 24).abs(), atol=1e-4)


def test_the_minimum_over_labels_has_the_gradient_of_the_nearest_one() -> None:
    """U(x, y) = |x - y|^2 / 2 for y in -1, 1: the minimum is (|x| - 1)^2 / 2, its slope |x| - 1."""

    def lowest(x: Tensor) -> Tensor:
        return torch.stack([(x - label).flatten(1).square().sum(1) / 2 for label in (-1.0, 1.0)]).amin(0)

    images = torch.tensor([-1.5, -0.2, 0.7, 3.0]).view(4, 1, 1, 1)
    response = respond(lowest, images, "float32")
    assert response.energy.tolist() == pytest.approx([0.125, 0.32, 0.045, 2.0])
    assert response.gradient_norm.tolist() == pytest.approx([0.5, 0.8, 0.3, 2.0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_shipped_energy_is_read_as_its_chains_read_it(
    digits_bundle: Bundle, digits_test: ImageDataset, precision: Precision
) -> None:
    images = from_uint8(digits_test.images[:20])
    response = respond(digits_bundle.defence.energy, images, precision)
    step = LangevinConfig(num_steps=1, step_size=0.1, temperature=0.5, precision=precision)
    _, chain = run_langevin(digits_bundle.defence.energy, images, step)
    assert torch.allclose(response.energy, chain.energy, rtol=1e-5)
    assert torch.allclose(step.drift_rate * response.gradient_norm, chain.drift_norm, rtol=1e-5)
