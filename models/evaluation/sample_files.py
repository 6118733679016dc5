"""Sets of images in files: an .npz archive, one on standard input, or a folder of PNGs."""

import io
import sys
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from models.errors import DataError
from models.image_files import read_image
from models.manifest import ImageShape


def read_samples(source: str, shape: ImageShape) -> Tensor:
    """uint8 images [N, C, H, W] of the given shape.

    Args:
        source: an .npz file with one array uint8 [N, C, H, W], or with one called `images`; `-` for such a file on
            standard input; or a folder, of which every .png is read, by name.

    Raises:
        DataError: nothing is there, or not such images.
    """
    if source == "-":
        return _read_npz(io.BytesIO(sys.stdin.buffer.read()), "standard input", shape)
    path = Path(source)
    if not path.is_dir():
        try:
            with path.open("rb") as stream:
                return _read_npz(stream, source, shape)
        except OSError as error:
            raise DataError(f"{source} can not be read: {error.strerror}") from error
    files = sorted(path.glob("*.png"))
    if not files:
        raise DataError(f"{path} holds no .png files")
    return torch.stack([read_image(file, shape) for file in files])


def _read_npz(stream: IO[bytes], name: str, shape: ImageShape) -> Tensor:
    try:
        # Never with pickle: it runs what a file says.
        with np.load(stream, allow_pickle=False) as archive:
            names = list(archive)
            key = "images" if "images" in names else names[0]
            if len(names) > 1 and key != "images":
                raise DataError(f"{name} holds {', '.join(names)}: expected one array, or one called images")
            array = archive[key]
    except (ValueError, TypeError, IndexError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{name} is not an .npz file of images: {error}") from error
    expected = (shape.channels, shape.height, shape.width)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != expected:
        raise DataError(
            f"{name} holds {array.dtype} of shape {list(array.shape)}, expected uint8 of shape [N, "
            f"{', '.join(map(str, expected))}]"
        )
    return torch.from_numpy(array)
