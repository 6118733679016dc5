"""Features of reference images on disk, so that each set is computed once and an interrupted run picks up again."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from models.data_sources import cache_folder
from models.errors import CheckpointError
from models.evaluation.features import Advance, FeatureNetwork
from models.files import replace_file
from models.kept import kept_tensors

IMAGES_PER_FILE = 1000


def image_digest(images: Tensor) -> str:
    """SHA-256 of the pixels and shape of uint8 images [N, C, H, W]."""
    return hashlib.sha256(str(tuple(images.shape)).encode() + images.contiguous().numpy().tobytes()).hexdigest()


def cached_features(network: FeatureNetwork, images: Tensor, advance: Advance = lambda count: None) -> Tensor:
    """`network.features`, by way of the cache; raises CheckpointError where it holds something else."""
    return torch.cat([_part(network, part, advance) for part in images.split(IMAGES_PER_FILE)])


def _part(network: FeatureNetwork, images: Tensor, advance: Advance) -> Tensor:
    # The device is in the name because GPUs round differently.
    content = f"{network.identity}, {network.device.type}, {image_digest(images)}"
    path = cache_folder() / "features" / f"{hashlib.sha256(content.encode()).hexdigest()}.safetensors"
    if (kept := kept_tensors(path, ("features",), "features")) is not None:
        advance(len(images))
        return _checked(path, kept[0]["features"], len(images))
    features = network.features(images, advance)
    replace_file(path, save({"features": features}))
    return features


def _checked(path: Path, features: Tensor, count: int) -> Tensor:
    if features.ndim != 2 or len(features) != count or not features.isfinite().all():
        raise CheckpointError(
            f"{path} holds {tuple(features.shape)}, expected {count} rows of finite features; "
            "delete it, and it is made again"
        )
    return features
