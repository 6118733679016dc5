"""Training streams: exact resumption, disjoint shares of one stream, and an order that no thread can change."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.data import load_dataset
from models.data_batches import Batches, BatchPlan, ImageDataset, TrainingSet, ahead
from models.data_cache import cached_images
from models.data_folder import ImageFolder
from models.data_streams import FolderStream, TableStream
from models.errors import DataError
from tests.models.pictures import Shards, number_of, write_classes

PLAN = BatchPlan(count=6, seed=3, flip=True)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingSet]:
    """The same 40 pictures in each form that training reads."""
    root = write_classes(tmp_path_factory.mktemp("pictures"), {"a": 25, "b": 15})
    source = ImageFolder("toy train", root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMPID_CACHE", str(tmp_path_factory.mktemp("cache")))
        mapped = cached_images(source, 8, 3)
    return {
        "memory": ImageDataset("toy", mapped.images.clone(), mapped.labels, mapped.class_names),
        "mapped": mapped,
        "folder": FolderStream(source, 8, 3),
        "table": TableStream(Shards([13, 9, 18]), 8, 3, block=7),
    }


FORMS = pytest.mark.parametrize("form", ["memory", "mapped", "folder", "table"])


def take(batches: Batches, count: int) -> list[Tensor]:
    return [next(batches) for _ in range(count)]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@FORMS
def test_batches_are_what_the_form_says(sets: dict[str, TrainingSet], form: str) -> None:
    found = sets[form]
    batch = next(found.batches(PLAN))
    assert (found.shape, len(found), batch.dtype, tuple(batch.shape)) == ((3, 8, 8), 40, torch.uint8, (6, 3, 8, 8))
    assert all(number_of(image.numpy()) < 40 for image in batch)


@FORMS
@pytest.mark.parametrize("before", [0, 1, 5, 11])
def test_a_restored_stream_goes_on_with_the_same_batches(sets: dict[str, TrainingSet], form: str, before: int) -> None:
    """Over a block's end, an epoch's end, and with batches that were read ahead when the state was taken."""
    batches = sets[form].batches(PLAN)
    take(batches, before)
    state = batches.state_dict()
    later = take(batches, 12)
    again = sets[form].batches(PLAN)
    again.load_state_dict(state)
    assert same(take(again, 12), later)
    batches.load_state_dict(state)
    assert same(take(batches, 12), later), "a stream goes back as well"


@FORMS
@pytest.mark.parametrize("world", [2, 4])
def test_shares_of_the_processes_make_up_the_whole_stream(sets: dict[str, TrainingSet], form: str, world: int) -> None:
    whole = sets[form].batches(PLAN)
    shares = [sets[form].batches(replace(PLAN, rank=rank, world=world)) for rank in range(world)]
    for _ in range(9):
        assert torch.equal(torch.cat([next(share) for share in shares]), next(whole))
        assert all(share.state_dict() == whole.state_dict() for share in shares)
    alone = sets[form].batches(PLAN)
    alone.load_state_dict(shares[-1].state_dict())
    assert torch.equal(next(alone), next(whole)), "resumed in another number of processes"


def test_decoding_while_training_gives_the_cached_images(sets: dict[str, TrainingSet]) -> None:
    """Three ways to the same pixels in the same order, two of them through a thread."""
    memory, mapped, folder = (take(sets[form].batches(PLAN), 8) for form in ("memory", "mapped", "folder"))
    assert same(memory, mapped)
    assert same(memory, folder)


@FORMS
def test_streams_of_different_seeds_differ(sets: dict[str, TrainingSet], form: str) -> None:
    assert not same(take(sets[form].batches(PLAN), 3), take(sets[form].batches(replace(PLAN, seed=4)), 3))


def numbers(batches: Batches, count: int) -> list[int]:
    return [number_of(image.numpy()) for batch in take(batches, count) for image in batch]


def test_an_epoch_of_a_table_has_every_image_once_in_another_order(sets: dict[str, TrainingSet]) -> None:
    epochs = numbers(sets["table"].batches(BatchPlan(count=4, seed=0)), 30)
    orders = [epochs[start : start + 40] for start in (0, 40, 80)]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_a_table_smaller_than_a_batch_goes_round() -> None:
    found = numbers(TableStream(Shards([2, 1]), 8, 3).batches(BatchPlan(count=7, seed=0)), 3)
    assert sorted(found) == sorted([0, 1, 2] * 7)


def test_drawing_is_uniform_and_half_is_mirrored() -> None:
    """1,000 draws of 4: each count is binomial with standard deviation 14, the mirrored one with 16."""
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).repeat(1, 1, 1, 2)
    images[:, :, :, 1] += 4
    batch = next(ImageDataset("toy", images, torch.zeros(4), ()).batches(BatchPlan(1000, seed=0, flip=True)))
    counts = torch.bincount(batch.amin(dim=(1, 2, 3)).long(), minlength=4)
    assert bool((counts - 250).abs().max() < 60)
    assert abs(int((batch[:, 0, 0, 0] > batch[:, 0, 0, 1]).sum()) - 500) < 64


@pytest.mark.parametrize("plan", [{"count": 2, "world": 3}, {"count": 4, "rank": 2, "world": 2}])
def test_impossible_plans_are_refused(plan: dict[str, int]) -> None:
    with pytest.raises(DataError, match="3 processes|rank 2"):
        BatchPlan(seed=0, **plan)


def test_a_broken_file_stops_the_stream_by_name(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"a": 3})
    (root / "a" / "0001.png").write_bytes(b"\x89PNG\r\n\x1a\n half")
    batches = FolderStream(ImageFolder("toy", root), 8, 3).batches(BatchPlan(count=8, seed=0))
    with pytest.raises(DataError, match=r"a/0001\.png: "):
        take(batches, 9)


def test_what_is_made_ahead_comes_in_order_and_errors_in_their_turn() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number
        raise DataError("the sixth")

    found = ahead(items(), depth=2)
    assert next(found) == 0
    assert len(made) <= 4, "no more than the bound"
    assert [next(found) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(DataError, match="the sixth"):
        next(found)


def test_what_ends_is_ended_ahead_too() -> None:
    assert list(ahead(iter(range(3)), 8)) == [0, 1, 2]


def test_an_empty_table_is_an_error_not_a_wait() -> None:
    with pytest.raises(DataError, match="toy train: no images"):
        next(TableStream(Shards([0, 0]), 8, 3).batches(PLAN))


def test_datasets_of_today_are_training_sets() -> None:
    digits: TrainingSet = load_dataset("digits", "train")
    batches = digits.batches(BatchPlan(count=64, seed=0))
    assert next(batches).shape == (64, *digits.shape)
    assert batches.state_dict() == {"batches": 1}
