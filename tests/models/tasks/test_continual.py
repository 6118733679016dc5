"""Class-incremental learning: energies classify by their lowest label, and springs hold where they should."""

import pytest
import torch
from torch import Tensor, nn

from models.data import load_dataset
from models.errors import DataError
from models.tasks.continual import (
    ElasticWeights,
    SoftmaxLearning,
    correct_by_energy,
    correct_by_logits,
    diagonal_fisher,
    label_energies,
    learn_task,
    softmax_network,
    split_classes,
)

LEARNING = SoftmaxLearning(updates=150, batch_size=32, widths=(64,), fisher_images=100)


class Distances(nn.Module):
    """E(x, y) = mean |x - c_y|^2, c_y the mean image of a class."""

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        self.centres = nn.Parameter(centres)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return (x - self.centres[labels]).flatten(1).square().mean(1)


def test_tasks_are_the_classes_in_order() -> None:
    assert split_classes(10, 2) == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    with pytest.raises(DataError, match="10 classes do not make tasks of 3"):
        split_classes(10, 3)


def test_the_lowest_energy_names_the_class() -> None:
    """The energies of class means are the classifier by the nearest mean, computed here another way."""
    data, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    pixels = data.images.float() / 127.5 - 1
    centres = torch.stack([pixels[data.labels == y].mean(0) for y in range(10)])
    energy = Distances(centres)
    labels = list(range(10))
    distances = torch.cdist((test.images.float() / 127.5 - 1).flatten(1), centres.flatten(1))
    assert torch.allclose(label_energies(energy, test.images, labels), distances.square() / 64, atol=1e-5)
    assert correct_by_energy(energy, test, labels) == int((distances.argmin(1) == test.labels).sum()) > 250
    few, part = test.labels >= 8, test.of_classes((8, 9))
    assert correct_by_energy(energy, part, (9, 8)) == int((distances[few, 8:].argmin(1) + 8 == part.labels).sum())


def test_the_fisher_information_of_a_linear_classifier_is_the_closed_form() -> None:
    """Two classes, logits (w x, 0): E[(d log p / dw)^2] = p (1 - p) x^2, p the sigmoid of w x."""
    weight = 0.7

    class Logistic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(weight))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.weight * x[:, 0], 0 * x[:, 0]], 1)

    x = torch.linspace(-2, 2, 4000)[:, None]
    found = diagonal_fisher(Logistic(), x, torch.Generator().manual_seed(0))["weight"]
    p = torch.sigmoid(weight * x)
    assert float(found) == pytest.approx(float((p * (1 - p) * x.square()).mean()), rel=0.05)


def test_springs_pull_as_their_importance_says() -> None:
    network = nn.Linear(2, 2)
    elastic = ElasticWeights()

    def penalty() -> float:
        return float(elastic.penalty(network).detach())

    assert penalty() == 0
    images = torch.tensor([[1.0, 0.0]]).repeat(64, 1)  # the second input is never there: its weights do not matter
    elastic.remember(network, images, torch.Generator().manual_seed(0))
    assert penalty() == 0
    fisher = diagonal_fisher(network, images, torch.Generator().manual_seed(0))["weight"]
    with torch.no_grad():
        network.weight[:, 1] += 5
    assert penalty() == 0
    with torch.no_grad():
        network.weight[0, 0] += 2
    assert penalty() == pytest.approx(0.5 * float(fisher[0, 0]) * 4)
    assert float(fisher[0, 0]) > 0


def test_a_fine_tuned_classifier_forgets_and_springs_hold() -> None:
    """Digits in two tasks: without springs only the last classes are named; strong ones keep the first, at a price."""
    data, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    labels, accuracies = list(range(10)), {}
    for strength in (0.0, 1e6):
        config = LEARNING.model_copy(update={"strength": strength})
        network, elastic = softmax_network(data.shape, 10, config, seed=0), ElasticWeights()
        for classes in split_classes(10, 5):
            learn_task(network, data.of_classes(classes), elastic, config, seed=classes[0])
        parts = [test.of_classes(classes) for classes in split_classes(10, 5)]
        accuracies[strength] = [correct_by_logits(network, part, labels) / len(part) for part in parts]
    assert accuracies[0.0][0] < 0.1 < 0.8 < accuracies[0.0][1]
    assert accuracies[1e6][0] > 0.7 > accuracies[1e6][1]


def test_weights_are_a_function_of_the_seed() -> None:
    one, again, other = (softmax_network((1, 8, 8), 10, LEARNING, seed) for seed in (0, 0, 1))
    assert sum(weight.numel() for weight in one.parameters()) == 64 * 64 + 64 + 64 * 10 + 10
    assert torch.equal(one[1].weight, again[1].weight)  # type: ignore[index]
    assert not torch.equal(one[1].weight, other[1].weight)  # type: ignore[index]
