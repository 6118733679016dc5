"""The least that a density of images must beat: a Gaussian."""

import math

import torch
from torch import Tensor

from models.evaluation.likelihood import likelihood
from models.pixels import dequantise


def gaussian_bits(train: Tensor, test: Tensor, seed: int) -> float:
    """Bits a pixel of test images, uint8 [N, C, H, W] dequantised, under a Gaussian fitted to training images.

    Its covariance is shrunk towards a multiple of 1 (Ledoit and Wolf 2004): some pixels never change in training.
    """
    from sklearn.covariance import LedoitWolf  # of the `train` extra, as the digits are

    x, y = (dequantise(each, torch.Generator().manual_seed(seed)).flatten(1).double() for each in (train, test))
    fitted = LedoitWolf().fit(x.numpy())
    potential = torch.from_numpy(fitted.mahalanobis(y.numpy())) / 2
    dimensions = x.shape[1]
    log_z = 0.5 * (dimensions * math.log(2 * math.pi) + float(torch.from_numpy(fitted.covariance_).logdet()))
    return likelihood(potential, log_z, dimensions).bits_per_dimension
