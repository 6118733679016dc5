"""What restores images without learning: the least that an energy must beat."""

from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from models.errors import ConfigError
from models.tasks.corruptions import Corrupted
from models.tasks.restoration import extremes, fill


def baselines(corrupted: Corrupted, marked: bool) -> Mapping[str, Tensor]:
    """Restored images by method: the median of 3x3 pixels where nobody marked the lost ones, and filled gaps.

    Unmarked pixels are taken for lost when they are black or white, as `denoise` does. `fill` is where chains start.

    Raises:
        ConfigError: scipy is not installed.
    """
    if find_spec("scipy") is None:
        raise ConfigError("the baselines of restoration need scipy: install the extra `eval`")
    images, mask = corrupted.images, corrupted.mask if marked else extremes(corrupted.images)
    smooth = {"median": median(images)} if not marked else {}
    return smooth | {"linear": linear(images, mask), "fill": fill(images, mask)}


def median(images: Tensor) -> Tensor:
    """Each pixel of [B, C, H, W] becomes the median of the 3x3 around it, the edge repeated, a channel at a time."""
    from scipy.ndimage import median_filter

    filtered = median_filter(images.cpu().numpy(), size=(1, 1, 3, 3), mode="nearest")
    return torch.from_numpy(filtered).to(images)


def linear(images: Tensor, mask: Tensor) -> Tensor:
    """Lost pixels of [B, C, H, W] interpolated between known ones, and beyond those like the nearest one."""
    pairs = zip(images.cpu().numpy(), mask[:, 0].cpu().numpy(), strict=True)
    return torch.from_numpy(np.stack([_interpolated(image, lost) for image, lost in pairs])).to(images)


def _interpolated(image: np.ndarray, lost: np.ndarray) -> np.ndarray:
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
    from scipy.spatial import QhullError

    known, wanted = np.argwhere(~lost), np.argwhere(lost)
    if not len(known) or not len(wanted):
        return image
    values = image[:, ~lost].T
    nearest = NearestNDInterpolator(known, values)(wanted)
    try:
        between = LinearNDInterpolator(known, values)(wanted)
    except QhullError:  # the known pixels lie on a line
        between = np.full_like(nearest, np.nan)
    result = image.copy()
    result[:, lost] = np.where(np.isnan(between), nearest, between).T
    return result
