"""The mapped cache, and which files of a folder are the images of a split."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from models.__main__ import main
from models.data import DATASETS, DataSection, class_names, load_dataset, open_training_set
from models.data_cache import CHUNK, cached_images
from models.data_decoding import Encoded
from models.data_folder import ImageFolder
from models.data_streams import FolderStream
from models.errors import ConfigError, DataError
from models.image_files import encode_png
from models.training.recipe import load_recipe
from tests.models.pictures import Shards, coloured, encode, number_of, write_classes


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIMPID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@dataclass(frozen=True)
class Interrupted(Shards):
    """Stops before picture number `stop`, and remembers what was asked of it."""

    stop: int | None = None
    asked: list[tuple[int, int]] = field(default_factory=list)

    def read(self, shard: int, first: int) -> Iterator[Encoded]:
        self.asked.append((shard, first))
        for number, encoded in enumerate(super().read(shard, first), sum(self.counts[:shard]) + first):
            if number == self.stop:
                raise KeyboardInterrupt
            yield encoded


def files(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.rglob("*") if path.suffix in (".npy", ".json")}


def test_two_builds_give_the_same_files_and_the_second_opening_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []
    for name in ("one", "two"):
        monkeypatch.setenv("LIMPID_CACHE", str(tmp_path / name))
        source = Interrupted([300, 20])
        first = cached_images(source, 8, 3)
        again = cached_images(source, 8, 3)
        assert source.asked == [(0, 0), (1, 0)]
        assert torch.equal(first.images, again.images)
        assert [number_of(image.numpy()) for image in first.images] == list(range(320))
        assert first.labels.tolist() == [0] * 300 + [1] * 20
        assert first.class_names == ("0", "1"), "labels without names are called by their number"
        assert first.mapped
        contents.append(files(tmp_path / name))
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [CHUNK + 10, 2 * CHUNK + 30]
    with pytest.raises(KeyboardInterrupt):
        cached_images(Interrupted(counts, stop=2 * CHUNK + 20), 8, 3)
    rest = Interrupted(counts)
    resumed = cached_images(rest, 8, 3)
    assert rest.asked == [(1, CHUNK)], "what was decoded is not read again"
    monkeypatch.setenv("LIMPID_CACHE", str(tmp_path / "other"))
    assert torch.equal(resumed.images, cached_images(Shards(counts), 8, 3).images)
    assert files(tmp_path / "cache") == files(tmp_path / "other")


@pytest.mark.parametrize(("told", "message"), [(4, "more than the 4"), (6, "5 images, expected 6")])
def test_a_source_that_miscounts_never_becomes_a_cache(told: int, message: str, cache: Path) -> None:
    class Miscounting(Shards):
        def __len__(self) -> int:
            return told

    with pytest.raises(DataError, match=message):
        cached_images(Miscounting([5]), 8, 3)
    assert not list(cache.rglob("set.json"))


def test_a_cache_larger_than_the_disk_is_refused_beforehand(cache: Path) -> None:
    with pytest.raises(DataError, match=r"takes .* GB .*LIMPID_CACHE moves it, data.streaming=true"):
        cached_images(Shards([1000]), 1_000_000, 3)
    assert not list(cache.rglob("images.npy"))


def test_a_folder_of_classes(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "photos", {"cat": 2, "dog": 3})
    (root / "cat" / ".hidden.png").write_bytes(b"")
    (root / "dog" / "notes.txt").write_text("not an image")
    found = load_dataset("folder", "train", root, side=4)
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 1, 1, 1]
    assert found.images.shape == (5, 3, 4, 4)
    assert load_dataset("folder", "train", root, side=8, channels=1).shape == (1, 8, 8)
    assert class_names(DataSection(name="folder", folder=root, side=4)) == ("cat", "dog")


def test_a_folder_without_classes(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        (tmp_path / f"{number}.PNG").write_bytes(encode(coloured(number)))
    found = load_dataset("folder", "train", tmp_path, side=8)
    assert [number_of(image.numpy()) for image in found.images] == [0, 1, 2]
    assert (found.class_names, found.labels.tolist()) == ((), [-1, -1, -1])


def test_a_changed_file_makes_another_cache(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    path.write_bytes(encode(coloured(1)))
    before = load_dataset("folder", "train", tmp_path, side=8)
    path.write_bytes(encode(coloured(258)))
    after = load_dataset("folder", "train", tmp_path, side=8)
    assert [number_of(found.images[0].numpy()) for found in (before, after)] == [1, 258]


def test_splits_lie_in_subfolders(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    write_classes(root / "train", {"a": 1, "b": 1})
    write_classes(root / "val", {"a": 2, "b": 2})
    assert len(load_dataset("folder", "train", root, side=8)) == 2
    assert len(load_dataset("folder", "test", root, side=8)) == 4
    assert load_dataset("imagenet64", "test", root).images.shape == (4, 3, 64, 64)
    (root / "car").mkdir()
    with pytest.raises(DataError, match=r"splits \(train, val\) and others \(car\)"):
        load_dataset("folder", "train", root, side=8)


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        load_dataset("celeba64", "train", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no images; expected \.jpeg"):
        load_dataset("celeba64", "train", tmp_path)
    root = write_classes(tmp_path / "photos", {"cat": 2})
    with pytest.raises(DataError, match="no test images in .*; expected a folder or parquet files test"):
        load_dataset("folder", "test", root, side=8)
    (root / "cat" / "0001.png").write_bytes(encode(coloured(1))[:60])
    with pytest.raises(DataError, match=r"photos/cat/0001\.png: "):
        load_dataset("folder", "train", root, side=8)
    (root / "stray.png").write_bytes(encode(coloured(1)))
    with pytest.raises(DataError, match=r"both images \(stray\.png\) and folders"):
        load_dataset("folder", "train", root, side=8)


def test_real_images_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Scikit-learn's digits as PNG files in a folder a class: the same images, sorted by class."""
    digits = load_dataset("digits", "test")
    for number, (image, label) in enumerate(zip(digits.images, digits.labels.tolist(), strict=True)):
        path = tmp_path / digits.class_names[label] / f"{number:04}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(image))
    order = torch.sort(digits.labels, stable=True).indices
    found = load_dataset("folder", "train", tmp_path, side=8, channels=1)
    assert torch.equal(found.images, digits.images[order])
    assert torch.equal(found.labels, digits.labels[order])
    assert found.class_names == digits.class_names


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["data.name=flowers"], r"data\.name"),
        (["data.name=folder", "data.side=8"], "data: .*needs the keys folder and side"),
        (["data.name=folder", "data.folder=x"], "data: .*needs the keys folder and side"),
        (["data.side=8"], r"digits is \(1, 8, 8\); side and channels are keys of name 'folder'"),
        (["data.streaming=true"], "streaming: digits is small"),
        (["data.name=folder", "data.folder=x", "data.side=8", "data.channels=2"], r"data\.channels"),
    ],
)
def test_recipes_name_the_wrong_key(keys: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("digits_midrun", keys)


def test_a_classifier_does_not_learn_from_a_stream() -> None:
    with pytest.raises(ConfigError, match=r"data\.streaming: only energies"):
        load_recipe("digits_classifier", ["data.name=imagenet64", "data.streaming=true"])


def test_runs_from_before_a_key_existed_still_have_the_same_recipe() -> None:
    """What a resumed run compares: absent keys count as null."""
    stored = DataSection(name="digits").model_dump(mode="json")
    assert {key: value for key, value in stored.items() if value is not None} == {"name": "digits"}
    streamed = DataSection(name="imagenet224", streaming=True)
    assert DataSection(**json.loads(streamed.model_dump_json())) == streamed


def test_streamed_images_are_decoded_as_they_are_read(tmp_path: Path, cache: Path) -> None:
    root = write_classes(tmp_path / "photos", {"cat": 2})
    streamed = open_training_set(DataSection(name="imagenet128", folder=root, streaming=True))
    assert isinstance(streamed, FolderStream)
    assert (streamed.shape, len(streamed), streamed.class_names) == ((3, 128, 128), 2, ("cat",))
    assert not cache.exists()
    kept = open_training_set(DataSection(name="folder", folder=root, side=8))
    assert kept.shape == (3, 8, 8)
    assert cache.exists()


def test_every_dataset_has_a_section_and_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, info in DATASETS.items():
        keys = {"folder": tmp_path, "side": 8} if info.shape is None else {}
        assert DataSection(name=name, **keys).shape == (info.shape or (3, 8, 8))
    root = write_classes(tmp_path / "photos", {"cat": 2})
    status = main(["data", "fetch", "folder", "--folder", str(root), "--side", "8", "--split", "train"])
    assert status == 0
    assert "folder train: 2 images (3, 8, 8) in 1 classes" in capsys.readouterr().out


def test_image_folders_are_listed_in_order(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "photos", {"b": 1, "a": 2})
    source = ImageFolder("toy", root)
    assert [(Path(item.where).name, item.label) for item in source.read(0, 1)] == [("0002.png", 0), ("0000.png", 1)]
