"""Image files for the command lines; uploads go through the stricter `service.decoding`."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from models.errors import DataError
from models.manifest import ImageShape

FORMATS = ("PNG", "JPEG", "WEBP")

# What Pillow's parsers raise on malformed files of these formats, fuzzed in the tests of `service.decoding`, whose
# `make_strict` adds the warnings.
PARSER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, RuntimeError),
    *(struct.error, zlib.error, UserWarning),
)


def has_16_bits(image: ImageFile.ImageFile) -> bool:
    """Whether an opened image has 16 bits per channel, which Pillow would clip or truncate silently."""
    return image.mode.startswith(("I", "F")) or any("16" in str(tile.args) for tile in image.tile)


def read_image(path: Path, shape: ImageShape) -> Tensor:
    """A PNG, JPEG or WebP file as uint8 [C, H, W]; raises DataError unless it has the shape's size."""
    try:
        with Image.open(path, formats=FORMATS) as opened:
            pixels = np.array(opened.convert("RGB" if shape.channels == 3 else "L"))
    except OSError as error:
        raise DataError(f"{path}: {error}") from error
    height, width = pixels.shape[:2]
    if (height, width) != (shape.height, shape.width):
        raise DataError(f"{path} is {width}x{height} pixels, expected {shape.width}x{shape.height}")
    return torch.from_numpy(pixels).view(height, width, shape.channels).permute(2, 0, 1)


def encode_png(pixels: Tensor) -> bytes:
    """uint8 [C, H, W], C 1 or 3, as a PNG that holds the pixels and nothing else."""
    array = pixels.permute(1, 2, 0).contiguous().cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array if pixels.shape[0] == 3 else array[:, :, 0]).save(buffer, format="PNG")
    return buffer.getvalue()


def write_png(path: Path, pixels: Tensor) -> None:
    """uint8 [C, H, W], C 1 or 3, as a PNG file; raises DataError when it can not be written."""
    try:
        path.write_bytes(encode_png(pixels))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
