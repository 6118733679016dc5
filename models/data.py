"""Datasets as uint8 tensors, and endless batches of them."""

import gzip
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from models.data_sources import CIFAR10, MNIST, locate
from models.errors import DataError

Split = Literal["train", "test"]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGIT_CLASSES = tuple("0123456789")


@dataclass(frozen=True)
class DatasetInfo:
    """(channels, height, width) of the images, and the class names."""

    shape: tuple[int, int, int]
    class_names: tuple[str, ...]


DATASETS = {
    "cifar10": DatasetInfo((3, 32, 32), CIFAR10_CLASSES),
    "mnist": DatasetInfo((1, 32, 32), DIGIT_CLASSES),
    "digits": DatasetInfo((1, 8, 8), DIGIT_CLASSES),
}


@dataclass(frozen=True)
class ImageDataset:
    """images uint8 [N, C, H, W], labels int64 [N], one class name per label."""

    name: str
    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def load_dataset(name: str, split: Split, folder: Path | None = None) -> ImageDataset:
    """One split of `cifar10`, `mnist` or `digits`; fetched when it is in neither `folder` nor the cache.

    cifar10 is [N, 3, 32, 32]; mnist is padded from 28 to 32 pixels, [N, 1, 32, 32]; digits are scikit-learn's
    1,797 handwritten digits, [N, 1, 8, 8], split 1,497 to 300.
    """
    if split not in ("train", "test"):
        raise DataError(f"unknown split {split!r}; known: train, test")
    if name == "cifar10":
        return _cifar10(split, locate(CIFAR10, folder))
    if name == "mnist":
        return _mnist(split, locate(MNIST, folder))
    if name == "digits":
        return _digits(split)
    raise DataError(f"unknown dataset {name!r}; known: {', '.join(DATASETS)}")


def endless_batches(images: Tensor, batch_size: int, generator: torch.Generator, flip: bool) -> Iterator[Tensor]:
    """uint8 batches [B, C, H, W] drawn uniformly with replacement, mirrored with probability 1/2 when `flip`.

    Stateless but for `generator`, so a run that restores the generator continues with the same batches.
    """
    while True:
        rows = torch.randint(len(images), (batch_size,), generator=generator)
        batch = images[rows]
        if flip:
            mirrored = torch.rand(batch_size, generator=generator) < 0.5
            batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
        yield batch


def _cifar10(split: Split, folder: Path) -> ImageDataset:
    names = [f"data_batch_{n}.bin" for n in range(1, 6)] if split == "train" else ["test_batch.bin"]
    raw = b"".join((folder / name).read_bytes() for name in names)
    rows = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(-1, 1 + 3 * 32 * 32)
    return ImageDataset("cifar10", rows[:, 1:].reshape(-1, 3, 32, 32).clone(), rows[:, 0].long(), CIFAR10_CLASSES)


def _mnist(split: Split, folder: Path) -> ImageDataset:
    prefix = "train" if split == "train" else "t10k"
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte")
    padded = functional.pad(images, (2, 2, 2, 2)).unsqueeze(1)
    return ImageDataset("mnist", padded, labels.long(), DIGIT_CLASSES)


def _digits(split: Split) -> ImageDataset:
    # Imported here because only the `train` extra and the tests have scikit-learn.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).mul(255.0 / 16.0).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    rows = order[300:] if split == "train" else order[:300]
    return ImageDataset("digits", images[rows], labels[rows], DIGIT_CLASSES)


def read_idx(path: Path) -> Tensor:
    """A uint8 tensor from an IDX file (the MNIST format), gzipped when its name ends in .gz."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    zero, kind, dimensions = struct.unpack(">HBB", raw[:4])
    if zero != 0 or kind != 8:
        raise DataError(f"{path}: not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
    return torch.frombuffer(bytearray(raw[4 + 4 * dimensions :]), dtype=torch.uint8).view(*shape)
