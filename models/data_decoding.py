"""Image files of datasets: checked, cropped to their middle square, resized.

The crop is that of EBM Life Cycle's code: the largest centred square, then a resize with a triangle filter widened by
the scale, which is what Pillow's BILINEAR is. CelebA's 178x218 faces are cut to 178x178 this way.
"""

import io
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from models.errors import DataError
from models.image_files import FORMATS, PARSER_ERRORS, has_16_bits

MAX_PIXELS = 80_000_000
"""More than any photograph of ImageNet has, and where Pillow begins to speak of bombs."""


class Encoded(NamedTuple):
    """An image file's bytes, its label (-1 without one), and what an error calls it."""

    content: bytes
    label: int
    where: str


def decode_all(encoded: Sequence[Encoded], side: int, channels: int, pool: Executor) -> Tensor:
    """uint8 [N, C, side, side], in order; Pillow decodes outside Python's lock, so that threads help."""
    arrays = pool.map(lambda item: decode_square(item.content, item.where, side, channels), encoded)
    return torch.from_numpy(np.stack(list(arrays)))


def decode_square(content: bytes, where: str, side: int, channels: int) -> npt.NDArray[np.uint8]:
    """uint8 [C, side, side] from a PNG, JPEG or WebP file, upright; raises DataError that begins with `where`.

    Refused: more than MAX_PIXELS pixels (by the header, before they are decompressed), several frames, 16 bits per
    channel, transparent pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            _check_header(opened)
            image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
                raise DataError("it has transparent pixels; flatten it on a background of your choice first")
            square = centre_square(image.convert("RGB" if channels == 3 else "L"))
            if square.width != side:
                square = square.resize((side, side), Image.Resampling.BILINEAR)
            return np.asarray(square, dtype=np.uint8).reshape(side, side, channels).transpose(2, 0, 1)
    except (DataError, Image.DecompressionBombError, *PARSER_ERRORS) as error:
        raise DataError(f"{where}: {error}") from error
    except (Image.DecompressionBombWarning, MemoryError) as error:
        raise DataError(f"{where}: more than {MAX_PIXELS} pixels") from error


def centre_square(image: Image.Image) -> Image.Image:
    """The largest centred square; of an odd margin, the smaller half is cut left or above."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _check_header(image: ImageFile.ImageFile) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{image.width}x{image.height} pixels, at most {MAX_PIXELS} in all are read")
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise DataError(f"it holds {frames} pictures, expected one")
    if has_16_bits(image):
        raise DataError("16 bits per channel; convert it to 8 bits first")
