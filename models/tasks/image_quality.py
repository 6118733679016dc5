"""How close images are to others: MSE and PSNR, with intervals over images."""

import math

import torch
from torch import Tensor

from models.config import Frozen
from models.evaluation.accuracy import Z_95
from models.pixels import LEVELS, from_uint8, to_uint8, to_unit

SMALLEST_MSE = 1.0 / (12.0 * LEVELS**2)
"""What rounding to 8 bits costs on average: a perfect image counts as 58.9 dB rather than as infinitely many."""


class Mean(Frozen):
    """A mean over `count` images with the normal 95 % interval of its standard error."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def mean_of(values: Tensor) -> Mean:
    """Of one number an image, [N], N >= 2."""
    return _mean(float(values.double().mean()), standard_error(values), len(values))


def difference_of(a: Tensor, b: Tensor) -> Mean:
    """Mean of a [N] minus mean of b [M], of different images (Welch)."""
    error = math.hypot(standard_error(a), standard_error(b))
    return _mean(float(a.double().mean() - b.double().mean()), error, len(a) + len(b))


def standard_error(values: Tensor) -> float:
    """Of the mean of [N]."""
    return float(values.double().std()) / math.sqrt(len(values))


def mse(images: Tensor, truth: Tensor) -> Tensor:
    """Mean square error [B] of whole images [B, C, H, W] in [-1, 1], pixels in [0, 1], once rounded to 8 bits."""
    rounded = from_uint8(to_uint8(images))
    return (to_unit(rounded) - to_unit(truth)).double().square().flatten(1).mean(1)


def psnr(errors: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [B] in dB, of `mse` [B]."""
    return -10.0 * torch.log10(errors.clamp(min=SMALLEST_MSE))


def _mean(value: float, error: float, count: int) -> Mean:
    return Mean(value=value, low=value - Z_95 * error, high=value + Z_95 * error, count=count)
