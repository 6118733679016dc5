"""The images that a defence is measured on."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.data import load_dataset
from models.errors import DataError
from models.manifest import Manifest
from models.pixels import from_uint8


@dataclass(frozen=True)
class LabelledImages:
    """images [B, C, H, W] in [-1, 1] and labels [B]: test images of `name`, from number `first` on."""

    name: str
    first: int
    images: Tensor
    labels: Tensor


def take_images(
    manifest: Manifest, name: str | None, folder: Path | None, first: int, count: int, device: torch.device
) -> LabelledImages:
    """Test images first .. first + count - 1 of a dataset that fits the bundle.

    Args:
        name: default, the dataset that the energy was trained on.

    Raises:
        DataError: the images have another shape or other classes than the bundle, or there are not so many.
    """
    shape = manifest.image
    data = load_dataset(name or manifest.dataset, "test", folder, shape.height, shape.channels)
    expected = (shape.channels, shape.height, shape.width)
    if data.shape != expected or len(data.class_names) != len(manifest.class_names):
        raise DataError(
            f"{data.name} has images of shape {data.shape} in {len(data.class_names)} classes; "
            f"{manifest.name} reads {expected} in {len(manifest.class_names)} classes"
        )
    if not 0 <= first < first + count <= len(data):
        raise DataError(f"asked for {count} images from number {first}; {data.name} has {len(data)} test images")
    rows = slice(first, first + count)
    return LabelledImages(data.name, first, from_uint8(data.images[rows]).to(device), data.labels[rows].to(device))
