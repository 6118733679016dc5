"""Upload bytes to a checked uint8 image, and pixels back to a PNG.

The checks run in this order, cheap ones before anything is decompressed:

1. magic bytes: PNG, JPEG or WebP; the declared media type and the file name are ignored;
2. width x height from the header against the cap;
3. exactly one frame: animations and multi-picture JPEGs are refused;
4. 16 bits per channel are refused (Pillow would clip or truncate them silently);
5. without `resize`, the size must be the bundle's, upright or turned;
6. decompression, where a truncated or corrupt file is refused;
7. the EXIF orientation is applied, so that the pixels are those that a viewer shows; all other metadata, colour
   profiles included, is ignored;
8. an alpha channel must be fully opaque and is dropped: there is no background to blend with that is not a guess;
9. grey, palette and CMYK images become the bundle's channels; a colour image is refused by a grey bundle;
10. the size, now upright, must be the bundle's, unless `resize` stretches it (bicubic, antialiased).

A mask goes the same way, may have colours, and must leave something known and something to restore.
"""

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from models.errors import DataError
from models.image_files import PARSER_ERRORS, has_16_bits
from models.manifest import ImageShape
from models.tasks.restoration import mask_of
from service.errors import DecodingError, FormatError, TooManyPixelsError
from service.uploads import MASK_FIELD


def make_strict() -> None:
    """Let Pillow raise where it would warn and guess (corrupt EXIF, invalid APNG, bombs). Programs call it once.

    It is the process's setting, because Python's `catch_warnings` is not safe among threads.
    """
    warnings.filterwarnings("error", category=UserWarning, module=r"PIL\.")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode_image(content: bytes, shape: ImageShape, max_pixels: int, resize: bool) -> Tensor:
    """The upload as uint8 [C, H, W] of the bundle's shape; raises a DecodingError that names the first failed check."""
    try:
        return _decode(content, shape, max_pixels, resize)
    except MemoryError as error:
        raise TooManyPixelsError("the image needs more memory to decode than there is") from error


def decode_mask(content: bytes, shape: ImageShape, max_pixels: int, resize: bool) -> Tensor:
    """The upload as bool [1, H, W], True where it is white; raises a DecodingError whose location is the mask."""
    try:
        pixels = decode_image(content, shape.model_copy(update={"channels": 3}), max_pixels, resize)
        return mask_of(pixels, MASK_FIELD)
    except DataError as error:
        raise DecodingError(str(error), [(MASK_FIELD, str(error))]) from error
    except DecodingError as error:
        raise type(error)(f"{MASK_FIELD}: {error.detail}", [(MASK_FIELD, error.detail)]) from error


def sniff_format(content: bytes) -> str | None:
    """PNG, JPEG or WEBP by the magic bytes, else None."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WEBP"
    return None


def _decode(content: bytes, shape: ImageShape, max_pixels: int, resize: bool) -> Tensor:
    expected = (shape.width, shape.height)
    image = _open(content, max_pixels)
    if not resize:
        _check_size(image, expected, expected[::-1])  # the EXIF orientation may turn it
    image = _to_channels(_drop_opaque_alpha(_load(image)), shape.channels)
    if not resize:
        _check_size(image, expected)
    if image.size != expected:
        image = image.resize(expected, Image.Resampling.BICUBIC)
    pixels = np.array(image, dtype=np.uint8).reshape(shape.height, shape.width, shape.channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _open(content: bytes, max_pixels: int) -> Image.Image:
    """Parse the header and refuse by it; no pixel is decompressed."""
    kind = sniff_format(content)
    if kind is None:
        raise FormatError("the upload is not a PNG, JPEG or WebP file")
    try:
        image = Image.open(io.BytesIO(content), formats=(kind,))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError(f"the image has more than the {max_pixels} pixels that are accepted") from error
    except PARSER_ERRORS as error:
        raise DecodingError(f"the {kind} file's header is corrupt or truncated") from error
    if image.width * image.height > max_pixels:
        raise TooManyPixelsError(
            f"the image has {image.width}x{image.height} = {image.width * image.height} pixels, "
            f"at most {max_pixels} are accepted"
        )
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise DecodingError(f"the {kind} file holds {frames} pictures (an animation?); send one still image")
    if has_16_bits(image):
        raise DecodingError(f"the {kind} file has 16 bits per channel; convert it to 8 bits first")
    return image


def _check_size(image: Image.Image, expected: tuple[int, int], *others: tuple[int, int]) -> None:
    if image.size not in (expected, *others):
        raise DecodingError(
            f"the image is {image.width}x{image.height} pixels, the bundle's size is {expected[0]}x{expected[1]}; "
            "resize=true accepts it by stretching, which changes the pixels that are classified"
        )


def _load(image: Image.Image) -> Image.Image:
    """Decompress, then turn the picture as its EXIF orientation says."""
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError("the image's data is larger than its header says") from error
    except PARSER_ERRORS as error:
        raise DecodingError(f"the {image.format} file is corrupt or truncated") from error


def _drop_opaque_alpha(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    lowest, _ = image.getchannel("A").getextrema()
    if lowest != 255:
        raise DecodingError("the image has transparent pixels; flatten it on a background of your choice first")
    return image.convert("RGB")


def _to_channels(image: Image.Image, channels: int) -> Image.Image:
    rgb = image.convert("RGB")  # grey becomes three equal channels; CMYK by the plain formula, without profiles
    if channels == 3:
        return rgb
    red, green, blue = rgb.split()
    if red.tobytes() != green.tobytes() or red.tobytes() != blue.tobytes():
        raise DecodingError("the bundle is for grey images and this one has colours; convert it to grey first")
    return red
