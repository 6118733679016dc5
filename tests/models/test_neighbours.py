"""Nearest neighbours against brute force, and copies that were planted among real images."""

import pytest
import torch

from models.data import ImageDataset, load_dataset
from models.errors import DataError
from models.evaluation import neighbours
from models.evaluation.neighbours import closeness, nearest


@pytest.fixture(scope="module")
def train() -> ImageDataset:
    return load_dataset("digits", "train")


def test_the_nearest_are_those_of_brute_force_however_they_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROWS", 7)
    monkeypatch.setattr(neighbours, "KNOWN_ROWS", 30)
    generator = torch.Generator().manual_seed(0)
    queries, references = torch.randn(20, 2, 5, generator=generator), torch.randn(100, 2, 5, generator=generator)
    advanced: list[int] = []
    found = nearest(queries, references, 3, advanced.append)
    whole = (queries[:, None] - references).flatten(2).norm(dim=2).sort(1)
    assert torch.equal(found.rows, whole.indices[:, :3])
    assert torch.allclose(found.distances, whole.values[:, :3])
    assert advanced == [7, 7, 6]
    with pytest.raises(DataError, match=r"at least 3 references of the queries' shape, got \(20, 2, 5\) and \(2, 2, 5"):
        nearest(queries, references[:2], 3)


def test_copies_are_found_and_unseen_digits_are_not_taken_for_them(
    train: ImageDataset, digits_test: ImageDataset
) -> None:
    """Copies with noise of one level; flat images are nearer to the data than digits are, and no copies of any."""
    images, unseen = train.images.float(), digits_test.images.float()
    chance, expected = nearest(unseen[::2], images), nearest(unseen[1::2], images)
    copies = nearest(images[:100] + torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(0)), images)
    assert torch.equal(copies.rows[:, 0], torch.arange(100))
    found = closeness("pixels", copies, expected)
    assert found.copies.value == 1.0
    assert found.samples[2] < found.held_out[0]
    fair = closeness("pixels", chance, expected).copies
    assert fair.interval is not None
    assert fair.interval[0] < 0.05 < fair.interval[1]
    means = torch.nn.functional.avg_pool2d(unseen, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    blurred = closeness("pixels", nearest(means, images), expected)
    assert blurred.copies.value < 0.1


def test_a_perfect_copy_has_ratio_0_and_one_that_is_there_twice_has_ratio_1() -> None:
    references = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
    found = nearest(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), references)
    assert found.ratios.tolist() == [0.0, 1.0]
