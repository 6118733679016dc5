"""Images of datasets: where the crop lies, what the resize gives, what is refused and by what name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from models.data_decoding import MAX_PIXELS, decode_square
from models.errors import DataError
from tests.models.pictures import Pixels, coloured, encode


def ramp(height: int, width: int, slope: int = 1) -> Pixels:
    """Red is the column, green the row, times `slope`."""
    rows, columns = np.mgrid[:height, :width] * slope
    return np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)


def test_a_face_of_celeba_loses_twenty_rows_above_and_below() -> None:
    image = decode_square(encode(ramp(218, 178)), "face", 178, 3)
    assert image.shape == (3, 178, 178)
    assert np.array_equal(image[0], np.tile(np.arange(178), (178, 1)))
    assert np.array_equal(image[1], np.tile(np.arange(20, 198)[:, None], (1, 178)))


@pytest.mark.parametrize(("height", "width", "top", "left"), [(5, 8, 0, 1), (8, 5, 1, 0), (9, 5, 2, 0), (4, 4, 0, 0)])
def test_the_largest_centred_square_is_kept(height: int, width: int, top: int, left: int) -> None:
    side = min(height, width)
    image = decode_square(encode(ramp(height, width)), "x", side, 3)
    assert np.array_equal(image[0, 0], np.arange(left, left + side))
    assert np.array_equal(image[1, :, 0], np.arange(top, top + side))


def test_a_ramp_stays_a_ramp_when_it_is_resized() -> None:
    """A symmetric filter keeps a linear ramp: of slope 2, four pixels wide, output pixel i is 8 i + 3."""
    image = decode_square(encode(ramp(120, 120, slope=2)), "x", 30, 3)
    inside = np.arange(2, 28)
    assert np.array_equal(image[0, 5, 2:28], 8 * inside + 3)
    assert np.array_equal(image[1, 2:28, 5], 8 * inside + 3)


def test_resizing_is_antialiased() -> None:
    """Stripes one pixel wide average to grey; picking single pixels would leave black or white."""
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    image = decode_square(encode(stripes), "x", 8, 3)
    assert int(image[:, :, 1:-1].min()) >= 126
    assert int(image[:, :, 1:-1].max()) <= 129


def test_the_orientation_of_the_camera_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the picture is shown turned a quarter to the right
    shown = decode_square(encode(ramp(6, 6), exif=exif.tobytes()), "x", 6, 3)
    assert np.array_equal(shown[0], np.tile(np.arange(6)[:, None], (1, 6)))
    assert np.array_equal(shown[1], np.tile(np.arange(6)[::-1], (6, 1)))


def test_grey_jpeg_and_palette_files_become_the_channels_that_are_asked_for() -> None:
    grey = np.full((8, 8), 77, dtype=np.uint8)
    assert decode_square(encode(grey, "JPEG"), "x", 8, 3).tolist() == np.full((3, 8, 8), 77).tolist()
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[:, :, 0] = 255
    assert decode_square(encode(red), "x", 8, 1).tolist() == np.full((1, 8, 8), 76).tolist()  # 0.299 * 255
    buffer = io.BytesIO()
    Image.fromarray(red).quantize(2).save(buffer, format="PNG")
    assert decode_square(buffer.getvalue(), "x", 8, 3)[:, 0, 0].tolist() == [255, 0, 0]


def test_opaque_alpha_is_dropped_and_transparency_refused() -> None:
    pixels = np.full((4, 4, 4), 255, dtype=np.uint8)
    pixels[:, :, 1] = 9
    assert decode_square(encode(pixels), "x", 4, 3)[:, 0, 0].tolist() == [255, 9, 255]
    pixels[0, 0, 3] = 254
    with pytest.raises(DataError, match=r"^a/b\.png: .*transparent"):
        decode_square(encode(pixels), "a/b.png", 4, 3)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises more than its few bytes hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def animation() -> bytes:
    buffer = io.BytesIO()
    first, second = (Image.fromarray(coloured(number)) for number in (1, 2))
    first.save(buffer, format="PNG", save_all=True, append_images=[second])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bomb(9000, 9000), f"9000x9000 pixels, at most {MAX_PIXELS}"),
        (bomb(10_000, 10_000), "pixels"),  # where Pillow warns
        (bomb(60_000, 60_000), "pixels"),  # where Pillow refuses
        (encode(coloured(3))[:-30], ""),
        (b"not an image", "cannot identify"),
        (animation(), "2 pictures"),
        (encode(np.zeros((4, 4), dtype=np.uint16)), "16 bits"),
    ],
    ids=["large", "larger", "bomb", "truncated", "text", "animation", "deep"],
)
def test_what_cannot_be_read_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=rf"^folder/0007\.jpg: .*{reason}"):
        decode_square(content, "folder/0007.jpg", 8, 3)
