"""Decoded images on disk, mapped into memory: built once, and gone on with where a build was interrupted.

$LIMPID_CACHE/images/NAME-SIDE-DIGEST/
  images.npy   uint8 [N, C, side, side]
  labels.npy   int64 [N]
  set.json     the class names; written last

A build's folder ends in .partial, and holds how far it came in progress.json. The digest is of the source's listing and
of what becomes of its images.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock

from models.console import progress_bar
from models.data_batches import ImageDataset
from models.data_decoding import Encoded, decode_all
from models.data_folder import ImageSource
from models.data_sources import cache_folder
from models.errors import DataError
from models.files import replace_file

FORMAT = 1
CHUNK = 256
"""Images that are decoded together and that an interrupted build may lose."""


def cached_images(source: ImageSource, side: int, channels: int) -> ImageDataset:
    """The source's images, cropped and resized to `side`, mapped from the cache; built when it is not there."""
    described = json.dumps([FORMAT, source.identity, side, channels])
    digest = hashlib.sha256(described.encode()).hexdigest()[:16]
    folder = cache_folder() / "images" / f"{source.name.replace(' ', '-')}-{side}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The processes of a distributed run all come here: one builds, the others wait for it.
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not (folder / "set.json").exists():
            _build(source, side, channels, folder)
    return _open(source.name, folder)


def _open(name: str, folder: Path) -> ImageDataset:
    mapped = np.load(folder / "images.npy", mmap_mode="r")
    with warnings.catch_warnings():
        # Of an array that cannot be written to: nothing here writes to a dataset.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        images = torch.from_numpy(mapped)
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    class_names = json.loads((folder / "set.json").read_text())["class_names"]
    return ImageDataset(name, images, labels, tuple(class_names), mapped=True)


def _build(source: ImageSource, side: int, channels: int, folder: Path) -> None:
    partial = folder.with_name(folder.name + ".partial")
    progress_file = partial / "progress.json"
    shape = (len(source), channels, side, side)
    shards = source.shards  # asked first: a source that does not open leaves nothing behind
    if not progress_file.exists():
        _allocate(source.name, partial, shape)
        replace_file(progress_file, json.dumps({"done": 0, "shard": 0, "first": 0}).encode())
    at = json.loads(progress_file.read_text())
    images, labels = (np.lib.format.open_memmap(partial / name, mode="r+") for name in ("images.npy", "labels.npy"))
    with (
        progress_bar(source.name, len(source), at["done"]) as progress,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for encoded, shard, first in _chunks(source, range(at["shard"], shards), at["first"]):
            rows = slice(at["done"], at["done"] + len(encoded))
            if rows.stop > len(source):
                raise DataError(f"{source.name}: more than the {len(source)} images that it says it has")
            images[rows] = decode_all(encoded, side, channels, pool).numpy()
            labels[rows] = [item.label for item in encoded]
            images.flush()
            labels.flush()
            at = {"done": rows.stop, "shard": shard, "first": first}
            replace_file(progress_file, json.dumps(at).encode())
            progress.advance(progress.task_ids[0], len(encoded))
    if at["done"] != len(source):
        raise DataError(f"{source.name}: {at['done']} images, expected {len(source)}")
    described = {"class_names": source.class_names or _numbered(labels), "source": source.name}
    replace_file(partial / "set.json", json.dumps(described).encode())
    progress_file.unlink()
    partial.rename(folder)


def _chunks(source: ImageSource, shards: range, first: int) -> Iterator[tuple[list[Encoded], int, int]]:
    """Up to CHUNK images of one shard at a time, from number `first` on, with the place where the next begin."""
    for number in shards:
        images = source.read(number, first)
        while encoded := list(islice(images, CHUNK)):
            first += len(encoded)
            yield encoded, number, first
        first = 0


def _allocate(name: str, folder: Path, shape: tuple[int, int, int, int]) -> None:
    needed = int(np.prod(shape)) + 8 * shape[0]
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise DataError(
            f"{name}: the cache takes {needed / 1e9:.1f} GB and {folder.parent} has {free / 1e9:.1f} GB free; "
            "LIMPID_CACHE moves it, data.streaming=true does without"
        )
    folder.mkdir(exist_ok=True)
    np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    np.lib.format.open_memmap(folder / "labels.npy", mode="w+", dtype=np.int64, shape=shape[:1])


def _numbered(labels: npt.NDArray[Any]) -> list[str]:
    """Labels without names are called by their number."""
    return [str(label) for label in range(int(labels.max()) + 1)]
