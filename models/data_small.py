"""Datasets that fit in memory, from their own file formats."""

import gzip
import struct
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from models.data_batches import ImageDataset
from models.errors import DataError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGIT_CLASSES = tuple("0123456789")


def cifar10(split: str, folder: Path) -> ImageDataset:
    """[N, 3, 32, 32] from the official binary files."""
    names = [f"data_batch_{n}.bin" for n in range(1, 6)] if split == "train" else ["test_batch.bin"]
    raw = b"".join((folder / name).read_bytes() for name in names)
    rows = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(-1, 1 + 3 * 32 * 32)
    return ImageDataset("cifar10", rows[:, 1:].reshape(-1, 3, 32, 32).clone(), rows[:, 0].long(), CIFAR10_CLASSES)


def mnist(split: str, folder: Path) -> ImageDataset:
    """[N, 1, 32, 32], padded from 28 pixels, from the official IDX files."""
    prefix = "train" if split == "train" else "t10k"
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte")
    padded = functional.pad(images, (2, 2, 2, 2)).unsqueeze(1)
    return ImageDataset("mnist", padded, labels.long(), DIGIT_CLASSES)


def digits(split: str) -> ImageDataset:
    """[N, 1, 8, 8]: scikit-learn's 1,797 handwritten digits, split 1,497 to 300."""
    # Imported here because only the `train` extra and the tests have scikit-learn.
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("digits: scikit-learn holds them; install the extra `train`") from error

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
