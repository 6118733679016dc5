"""Images that a model has not learned, as uint8 [N, C, H, W] of its shape.

| set             | its images                                                                               |
|-----------------|------------------------------------------------------------------------------------------|
| a dataset       | test images; grey ones (MNIST, digits) in one random colour on another                   |
| `interpolation` | means of two images of the data                                                          |
| `blurred`       | the data's through a Gaussian of 1/16 of the side, reflected at the edges                 |
| `permuted`      | the data's with their pixels in a random order, each image in its own                    |
| `constant`      | one random colour                                                                        |
| `uniform`       | each value uniform in 0..255                                                             |
| `gaussian`      | each value normal, mean 1/2 and deviation 1/4 of the range, clipped to it (4.6 % are)     |

Every set, the data included, goes through `fit` alone, and into the energy as 8-bit pixels without noise: IGEBM's code
dequantised and scaled some sets otherwise than CIFAR-10, and cut textures at their top left corner, which tells sets
apart by how they were prepared.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from models.pixels import from_uint8, to_uint8

Shape = tuple[int, int, int]
"""Channels, height, width."""

LUMA = (0.299, 0.587, 0.114)


def fit(images: Tensor, shape: Shape, generator: torch.Generator) -> Tensor:
    """uint8 images [N, C, H, W] of any size as uint8 of `shape`: unchanged where they have it.

    Resized bilinearly, with a filter widened by the scale; colours become grey by their luma, and grey pixels lie
    between two colours drawn for each image.
    """
    channels, *size = shape
    if list(images.shape[2:]) != size:
        resized = functional.interpolate(from_uint8(images), size, mode="bilinear", antialias=True)
        images = to_uint8(resized)
    if images.shape[1] == channels:
        return images
    if channels == 1:
        return to_uint8((from_uint8(images) * torch.tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True))
    dark, light = torch.randint(256, (2, len(images), channels, 1, 1), generator=generator)
    coloured: Tensor = dark + (light - dark) * (images / 255.0)
    return coloured.round().to(torch.uint8)


def interpolation(data: Tensor, generator: torch.Generator) -> Tensor:
    """Each image's mean with the one before it in a random order."""
    order = torch.randperm(len(data), generator=generator)
    pairs = torch.stack([data[order], data[order.roll(1)]]).float()
    return pairs.mean(0).round().to(torch.uint8)


def blurred(data: Tensor, generator: torch.Generator) -> Tensor:
    """The kernel reaches three deviations, but not beyond an image's own pixels, which reflection needs."""
    side = min(data.shape[2:])
    sigma = side / 16
    reach = min(max(1, round(3 * sigma)), side - 1)
    row = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    row = (row / row.sum()).view(1, 1, 1, -1)
    single = from_uint8(data).flatten(0, 1).unsqueeze(1)
    padded = functional.pad(single, (reach,) * 4, mode="reflect")
    smooth = functional.conv2d(functional.conv2d(padded, row), row.mT)
    return to_uint8(smooth.view(data.shape))


def permuted(data: Tensor, generator: torch.Generator) -> Tensor:
    """Channels stay together, so that an image keeps its colours."""
    pixels = data.flatten(2)
    order = torch.rand(len(data), 1, pixels.shape[2], generator=generator).argsort(-1)
    return pixels.gather(2, order.expand_as(pixels)).view(data.shape)


def constant(data: Tensor, generator: torch.Generator) -> Tensor:
    """Of the data, this and the following take the shape alone."""
    colours = torch.randint(256, (*data.shape[:2], 1, 1), generator=generator, dtype=torch.uint8)
    return colours.expand(data.shape).contiguous()


def uniform(data: Tensor, generator: torch.Generator) -> Tensor:
    """Independent levels."""
    return torch.randint(256, data.shape, generator=generator, dtype=torch.uint8)


def gaussian(data: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 1/2) in [-1, 1], rounded and clipped to 8 bits."""
    return to_uint8(0.5 * torch.randn(data.shape, generator=generator))


MADE: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    made.__name__: made for made in (interpolation, blurred, permuted, constant, uniform, gaussian)
}
"""Sets that are made, from uint8 images of the data [N, C, H, W] which are not scored themselves."""
