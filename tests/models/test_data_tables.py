"""Parquet files in Hugging Face's layout, read by the library that also reads the hub."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.data import DataSection, load_dataset, open_training_set
from models.data_batches import BatchPlan
from models.data_decoding import decode_square
from models.data_streams import TableStream
from models.data_tables import HubDataset, hub_table, parquet_table
from models.errors import DataError
from tests.models.pictures import coloured, encode, number_of

datasets = pytest.importorskip("datasets")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMPID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hub"))


def write_hub_layout(folder: Path, split: str, counts: list[int], names: list[str]) -> list[Path]:
    """SPLIT-00000-of-0000N.parquet as the hub has them: PNG bytes, labels with names, a column too many."""
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names), "blond": datasets.Value("bool")}
    )
    paths, number = [], 0
    for shard, count in enumerate(counts):
        numbers = range(number, number + count)
        columns = {
            "image": [Image.open(io.BytesIO(encode(coloured(n)))) for n in numbers],
            "label": [n % len(names) for n in numbers],
            "blond": [True] * count,
        }
        path = folder / f"{split}-{shard:05}-of-{len(counts):05}.parquet"
        datasets.Dataset.from_dict(columns, features=features).to_parquet(str(path), batch_size=4)
        paths.append(path)
        number += count
    return paths


def test_parquet_of_the_hub_is_read_with_its_class_names(tmp_path: Path) -> None:
    write_hub_layout(tmp_path / "data", "train", [5, 3], ["cat", "dog"])
    write_hub_layout(tmp_path / "data", "validation", [4], ["cat", "dog"])
    train = load_dataset("folder", "train", tmp_path, side=8)
    assert [number_of(image.numpy()) for image in train.images] == list(range(8))
    assert train.labels.tolist() == [0, 1] * 4
    assert train.class_names == ("cat", "dog")
    assert len(load_dataset("imagenet64", "test", tmp_path)) == 4


def test_plain_parquet_needs_no_metadata(tmp_path: Path) -> None:
    """Bytes and nothing else: no label, no names."""
    import pyarrow

    rows = [{"img": {"bytes": encode(coloured(n)), "path": None}} for n in range(6)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "faces.parquet", row_group_size=2)
    found = load_dataset("celeba64", "train", tmp_path)
    assert found.images.shape == (6, 3, 64, 64)
    assert (found.class_names, found.labels.tolist()) == ((), [-1] * 6)


def test_a_file_is_read_from_any_row_on(tmp_path: Path) -> None:
    table = parquet_table("toy", write_hub_layout(tmp_path, "train", [9, 7], ["a", "b"]))
    assert (len(table), table.shards) == (16, 2)
    for first in (0, 1, 5, 7):
        rows = list(table.read(1, first))
        assert [number_of(decode_square(row.content, row.where, 8, 3)) for row in rows] == list(range(9 + first, 16))
        assert [row.label for row in rows] == [n % 2 for n in range(9 + first, 16)]


def test_a_streamed_table_resumes_exactly(tmp_path: Path) -> None:
    write_hub_layout(tmp_path, "train", [9, 7, 8], ["a", "b"])
    streamed = open_training_set(DataSection(name="folder", folder=tmp_path, side=8, streaming=True))
    assert isinstance(streamed, TableStream)
    streamed = TableStream(streamed.source, 8, 3, block=5)
    batches = streamed.batches(BatchPlan(count=4, seed=1))
    epoch = [number_of(image.numpy()) for _ in range(6) for image in next(batches)]
    assert sorted(epoch) == list(range(24))
    state = batches.state_dict()
    later = [next(batches) for _ in range(7)]
    again = streamed.batches(BatchPlan(count=4, seed=1))
    again.load_state_dict(state)
    assert all(torch.equal(next(again), batch) for batch in later)


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    import pyarrow

    rows = [{"image": {"bytes": encode(coloured(n)), "path": f"{n}.png"}} for n in range(3)]
    rows[2]["image"]["bytes"] = b"\x89PNG\r\n\x1a\n half"
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet, row 2 \(2\.png\): "):
        load_dataset("folder", "train", tmp_path, side=8)
    rows[1]["image"]["bytes"] = None
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"row 1 \(1\.png\): the table has no bytes"):
        load_dataset("folder", "train", tmp_path, side=8)
    parquet.write_table(pyarrow.Table.from_pylist([{"picture": b"", "text": ""}]), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="expected a column image or img, got picture, text"):
        load_dataset("folder", "train", tmp_path, side=8)
    (tmp_path / "train.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"train\.parquet: "):
        load_dataset("folder", "train", tmp_path, side=8)


def test_a_split_that_the_files_do_not_have_is_refused(tmp_path: Path) -> None:
    write_hub_layout(tmp_path, "validation", [2], ["a"])
    with pytest.raises(DataError, match="no train images"):
        load_dataset("folder", "train", tmp_path, side=8)


def test_without_a_hub_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    gated = HubDataset("ILSVRC/imagenet-1k", {"train": ("train", 10)}, gated=True)
    with pytest.raises(DataError, match=r"imagenet64 train: .*ILSVRC/imagenet-1k is gated: accept .* data\.folder"):
        next(hub_table("imagenet64 train", gated, "train").read(0, 0))
    with pytest.raises(DataError, match=r"celeba64 train: .*; data\.folder takes a local copy"):
        load_dataset("celeba64", "train")
    assert not list((tmp_path / "cache").rglob("images.npy"))


def test_datasets_of_other_kinds_have_their_labels_and_splits(tmp_path: Path) -> None:
    """CIFAR-100's column of labels, SVHN's third split, and textures of the size that is asked for."""
    columns = {"img": [Image.fromarray(coloured(n, side=32)) for n in range(4)]}
    labels = {"fine_label": [3, 1, 0, 2], "coarse_label": [0, 0, 0, 0]}
    names = datasets.ClassLabel(names=["apple", "baby", "bear", "bee"])
    kinds = {"img": datasets.Image(), "fine_label": names, "coarse_label": datasets.Value("int64")}
    table = datasets.Dataset.from_dict(columns | labels, features=datasets.Features(kinds))
    table.to_parquet(str(tmp_path / "cifar100" / "test-00000-of-00001.parquet"))
    found = load_dataset("cifar100", "test", tmp_path / "cifar100")
    assert (found.labels.tolist(), found.class_names[1], found.shape) == ([3, 1, 0, 2], "baby", (3, 32, 32))
    for split, count in (("train", 3), ("test", 2), ("extra", 4)):
        write_hub_layout(tmp_path / "svhn", split, [count], list("01"))
    assert len(load_dataset("svhn", "test", tmp_path / "svhn")) == 2
    write_hub_layout(tmp_path / "textures", "test", [3], ["banded"])
    assert load_dataset("textures", "test", tmp_path / "textures", side=16, channels=1).shape == (1, 16, 16)


def test_a_configuration_is_part_of_what_a_table_is() -> None:
    splits = {"test": ("test", 5)}
    whole, cropped = (HubDataset("a/b", splits, configuration=name) for name in (None, "cropped"))
    assert "name" not in hub_table("x", whole, "test").arguments
    assert hub_table("x", cropped, "test").arguments["name"] == "cropped"
    assert hub_table("x", whole, "test").identity != hub_table("x", cropped, "test").identity
