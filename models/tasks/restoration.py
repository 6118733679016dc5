"""Restoration: an energy's chains make the missing pixels of an image, given the others.

A chain that moves only the missing pixels samples exp(-U(x) / T) given the known ones (Implicit Generation and
Generalization in EBMs, arXiv 1903.08689, section 4.2). The mean over its replicates is the answer, and their spread
says where it is a guess.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from models.errors import DataError
from models.gradients import Energy
from models.langevin import Callback, run_langevin
from models.noise import UNSEEDED, Noise
from models.pixels import to_uint8
from models.purifier import CHAINS_PER_BATCH, Preset, split_replicates

Start = Literal["smooth", "noise"]
Method = Literal["extremes", "everywhere"]
WHITE = 128


@dataclass(frozen=True)
class Restored:
    """Images [B, C, H, W] in [-1, 1], and how far their replicates spread, [B, 1, H, W].

    The spread is a pixel's standard deviation over the replicates, root mean square over its channels, in the images'
    unit; 0 where a pixel was known, and for a single replicate.
    """

    images: Tensor
    spread: Tensor


def inpaint(
    energy: Energy,
    images: Tensor,
    mask: Tensor,
    preset: Preset,
    start: Start = "smooth",
    randn_like: Noise = UNSEEDED,
    callback: Callback | None = None,
) -> Restored:
    """Sample the pixels where `mask` [B, 1, H, W] is True, given the others, which come back to the bit.

    What `images` [B, C, H, W] hold under the mask changes nothing.

    Args:
        start: where the missing pixels' chains begin: at `fill`'s guess, or uniform in [-1, 1] as in the paper, for
            energies whose chains find the data from there.
    """
    held, count = [], preset.replicates * len(images)
    for rows in torch.arange(count, device=images.device).split(CHAINS_PER_BATCH):
        chosen = rows % len(images)
        known, free = images[chosen], mask[chosen]
        begin = fill(known, free) if start == "smooth" else torch.where(free, _uniform(randn_like(known)), known)
        held.append(run_langevin(energy, begin, preset, randn_like=randn_like, callback=callback, mask=free)[0])
    restored = summarise(split_replicates(torch.cat(held), preset.replicates))
    return Restored(torch.where(mask, restored.images, images), restored.spread)


def denoise(
    energy: Energy,
    images: Tensor,
    preset: Preset,
    method: Method = "extremes",
    randn_like: Noise = UNSEEDED,
    callback: Callback | None = None,
) -> Restored:
    """Clean images [B, C, H, W] whose corrupted pixels nobody has marked.

    Args:
        method: `extremes` takes every pixel that is black or white for corrupted, and makes it anew: right for salt and
            pepper, at the price of true black and white. `everywhere` lets all pixels move from where they are, as
            purification does: it assumes nothing of the noise, and changes what was good.
    """
    if method == "extremes":
        return inpaint(energy, images, extremes(images), preset, "smooth", randn_like, callback)
    everywhere = [
        run_langevin(energy, images[rows % len(images)], preset, randn_like=randn_like, callback=callback)[0]
        for rows in torch.arange(preset.replicates * len(images), device=images.device).split(CHAINS_PER_BATCH)
    ]
    return summarise(split_replicates(torch.cat(everywhere), preset.replicates))


def summarise(replicates: Tensor) -> Restored:
    """[R, B, C, H, W] to their mean and spread."""
    variance = replicates.var(0, correction=1 if len(replicates) > 1 else 0)
    return Restored(replicates.mean(0), variance.mean(1, keepdim=True).sqrt())


def extremes(images: Tensor) -> Tensor:
    """bool [B, 1, H, W]: pixels of [-1, 1] images that are black, or white, in all channels."""
    return (images <= -1.0).all(1, keepdim=True) | (images >= 1.0).all(1, keepdim=True)


def fill(images: Tensor, mask: Tensor) -> Tensor:
    """A smooth guess of the pixels under the mask, from those around them, near ones first; mid-grey without any.

    Pull and push (Gortler et al. 1996, The Lumigraph): known pixels are averaged to half the size, again and again, and
    each size takes what it lacks from the next smaller one.
    """
    known = (~mask).to(images.dtype)
    if not mask.any():
        return images
    if max(images.shape[2:]) == 1:
        return images * known
    weight = functional.avg_pool2d(known, 2, ceil_mode=True)
    half = functional.avg_pool2d(images * known, 2, ceil_mode=True) / weight.clamp(min=torch.finfo(weight.dtype).tiny)
    guess = functional.interpolate(fill(half, weight == 0.0), images.shape[2:], mode="bilinear")
    return torch.where(mask, guess, images)


def mask_of(pixels: Tensor, name: str) -> Tensor:
    """bool [1, H, W] of a mask, uint8 [C, H, W]: white (128 or above) is to be restored, black is known.

    Raises:
        DataError: nothing is to be restored, or nothing is known; the message begins with `name`.
    """
    mask = pixels.float().mean(0, keepdim=True) >= WHITE
    if not mask.any() or mask.all():
        colour, lacks = ("black", "to restore") if not mask.any() else ("white", "known to restore from")
        raise DataError(
            f"{name}: all {mask.numel()} pixels are {colour}, nothing is {lacks}; "
            "expected white where pixels are to be restored and black where they are known"
        )
    return mask


def spread_levels(spread: Tensor) -> Tensor:
    """A standard deviation in [-1, 1] units as uint8 of the same shape, a level for each 1/255 of the pixels' range."""
    return to_uint8(spread - 1.0)


def _uniform(normal: Tensor) -> Tensor:
    """Standard normal numbers as uniform ones on [-1, 1]."""
    return torch.erf(normal / 2.0**0.5)
