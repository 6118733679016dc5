"""Image files for the command lines; uploads go through the stricter `service.decoding`."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.errors import DataError
from models.manifest import ImageShape


def read_image(path: Path, shape: ImageShape) -> Tensor:
    """A PNG, JPEG or WebP file as uint8 [C, H, W]; raises DataError unless it has the shape's size."""
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as opened:
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
