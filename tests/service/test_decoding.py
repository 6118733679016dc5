"""Every rule of `service.decoding`, with files that Pillow wrote or that were broken on purpose."""

import importlib
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, PngImagePlugin, WebPImagePlugin

from models.image_files import encode_png
from models.manifest import ImageShape
from service.decoding import decode_image, make_strict, sniff_format
from service.errors import DecodingError, FormatError, RequestError, TooManyPixelsError

Save = Callable[..., bytes]
RGB = ImageShape(height=6, width=8, channels=3)
GREY = ImageShape(height=6, width=8, channels=1)
MAX_PIXELS = 4_000_000
ROOT = Path(__file__).parents[2]


def noise(mode: str = "RGB", size: tuple[int, int] = (8, 6), seed: int = 0) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], bands) if bands > 1 else (size[1], size[0])
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.frombytes(mode, size, array.tobytes())


def pixels_of(image: Image.Image) -> torch.Tensor:
    array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)


def decode(content: bytes, shape: ImageShape = RGB, resize: bool = False, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    return decode_image(content, shape, max_pixels, resize)


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_keep_every_pixel(save: Save, kind: str, options: dict[str, object]) -> None:
    image = noise()
    decoded = decode(save(image, kind, **options))
    assert decoded.dtype == torch.uint8
    assert decoded.shape == (3, 6, 8)
    assert decoded.is_contiguous()
    assert torch.equal(decoded, pixels_of(image))


def test_jpeg_is_close_to_what_was_saved(save: Save) -> None:
    image = Image.new("RGB", (8, 6), (200, 100, 50))
    decoded = decode(save(image, "JPEG", quality=95))
    assert (decoded.int() - pixels_of(image).int()).abs().max() <= 3


def test_png_survives_a_round_trip_and_holds_only_pixels() -> None:
    for channels, shape in ((3, RGB), (1, GREY)):
        pixels = torch.randint(0, 256, (channels, 6, 8), dtype=torch.uint8)
        png = encode_png(pixels)
        assert torch.equal(decode(png, shape), pixels)
        assert {
            png[i : i + 4] for i in range(len(png)) if png[i : i + 4] in (b"tEXt", b"eXIf", b"iCCP", b"tIME")
        } == set()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "PPM", "ICO"])
def test_other_formats_are_refused_with_415(save: Save, kind: str) -> None:
    with pytest.raises(FormatError, match="PNG, JPEG or WebP") as caught:
        decode(save(noise(), kind))
    assert caught.value.status == 415


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"<svg/>", b"RIFF\0\0\0\0WAVEfmt ", b"%!PS-Adobe", b"\0" * 100])
def test_wrong_magic_is_refused_with_415(content: bytes) -> None:
    assert sniff_format(content) is None
    with pytest.raises(FormatError):
        decode(content)


def test_content_behind_a_magic_number_must_be_of_that_format(save: Save) -> None:
    gif = save(noise(), "GIF")
    for magic in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"):
        with pytest.raises(DecodingError, match="corrupt or truncated") as caught:
            decode(magic + gif)
        assert caught.value.status == 422


@pytest.mark.parametrize(("width", "height"), [(2001, 2000), (9000, 9000), (14000, 14000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_by_their_header(monkeypatch: pytest.MonkeyPatch, width: int, height: int) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("a bomb was loaded"))
    tracemalloc.start()
    try:
        with pytest.raises(TooManyPixelsError, match=f"{MAX_PIXELS}") as caught:
            decode(png_header(width, height), resize=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.status == 413
    assert peak < 1_000_000


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("stage", ["load", "open"])
def test_a_file_that_memory_is_too_small_for_is_refused(
    save: Save, monkeypatch: pytest.MonkeyPatch, kind: str, stage: str
) -> None:
    content, plugin = save(noise(), kind), {"PNG": "Png", "JPEG": "Jpeg", "WEBP": "WebP"}[kind]

    def fail(self: Image.Image) -> None:
        raise MemoryError

    owner = importlib.import_module(f"PIL.{plugin}ImagePlugin")
    name = {"PNG": "PngImageFile", "JPEG": "JpegImageFile", "WEBP": "WebPImageFile"}[kind]
    monkeypatch.setattr(getattr(owner, name), {"load": "load", "open": "_open"}[stage], fail)
    with pytest.raises(TooManyPixelsError, match="more memory") as caught:
        decode(content)
    assert caught.value.status == 413


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(2000, 2000), (16_383, 6), (8, 16_383), (9, 6)])
def test_another_size_is_refused_by_the_header(
    save: Save, monkeypatch: pytest.MonkeyPatch, kind: str, size: tuple[int, int]
) -> None:
    content = save(Image.new("RGB", size), kind)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decompressed"))
    monkeypatch.setattr(WebPImagePlugin.WebPImageFile, "load", lambda self: pytest.fail("it was decompressed"))
    with pytest.raises(DecodingError, match=f"is {size[0]}x{size[1]} pixels, the bundle's size is 8x6") as caught:
        decode(content)
    assert caught.value.status == 422


def test_a_turned_size_without_an_orientation_is_refused(save: Save) -> None:
    with pytest.raises(DecodingError, match="is 6x8 pixels, the bundle's size is 8x6"):
        decode(save(noise(size=(6, 8))))


def test_the_pixel_cap_is_inclusive(save: Save) -> None:
    decode(save(noise()), max_pixels=48)
    with pytest.raises(TooManyPixelsError, match="8x6 = 48 pixels, at most 47"):
        decode(save(noise()), max_pixels=47)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(save: Save, kind: str) -> None:
    content = save(noise(), kind, save_all=True, append_images=[noise(seed=1), noise(seed=2)], lossless=True)
    with pytest.raises(DecodingError, match="3 pictures"):
        decode(content)


def test_multi_picture_jpegs_are_refused(save: Save) -> None:
    content = save(noise(), "MPO", save_all=True, append_images=[noise(seed=1)])
    assert sniff_format(content) == "JPEG"
    with pytest.raises(DecodingError, match="2 pictures"):
        decode(content)


def sixteen_bit(colour_type: int, channels: int) -> bytes:
    rows = b"".join(b"\0" + struct.pack(f">{8 * channels}H", *range(8 * channels)) for _ in range(6))
    writer = []
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", 8, 6, 16, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        writer.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(writer)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_pngs_are_refused_in_every_colour_type(colour_type: int, channels: int) -> None:
    with pytest.raises(DecodingError, match="16 bits per channel"):
        decode(sixteen_bit(colour_type, channels))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(save: Save, kind: str, share: float) -> None:
    content = save(noise(size=(64, 64)), kind)
    with pytest.raises(DecodingError, match="corrupt or truncated") as caught:
        decode(content[: int(len(content) * share)], resize=True)
    assert caught.value.status == 422
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_is_applied(save: Save, kind: str) -> None:
    upright = Image.new("RGB", (8, 6), "white")
    upright.paste("black", (0, 0, 4, 6))  # dark on the left
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to view
    decoded = decode(save(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})))
    assert decoded.shape == (3, 6, 8)
    assert decoded[:, :, 0].max() < 40
    assert decoded[:, :, 7].min() > 215


@pytest.mark.filterwarnings("default")
def test_a_corrupt_exif_block_is_refused(save: Save) -> None:
    make_strict()
    content = save(noise(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\0\0\0\x01")
    with pytest.raises(DecodingError, match="corrupt") as caught:
        decode(content)
    assert caught.value.status == 422


def test_opaque_alpha_is_dropped(save: Save) -> None:
    image = noise()
    opaque = image.copy()
    opaque.putalpha(255)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert torch.equal(decode(save(opaque, kind, **options)), pixels_of(image))


def test_transparency_is_refused_wherever_it_is_stored(save: Save) -> None:
    rgba = noise()
    rgba.putalpha(255)
    rgba.putpixel((3, 3), (1, 2, 3, 254))
    grey = noise("L")
    grey_alpha = Image.merge("LA", (grey, Image.new("L", grey.size, 128)))
    palette = noise().quantize(8)
    contents = [
        save(rgba),
        save(rgba, "WEBP", lossless=True),
        save(grey_alpha),
        save(palette, transparency=palette.getpixel((0, 0))),
        save(grey, transparency=grey.getpixel((0, 0))),
    ]
    for content in contents:
        with pytest.raises(DecodingError, match="transparent"):
            decode(content)


def test_palette_and_bilevel_images_become_colours(save: Save) -> None:
    palette = noise().quantize(16)
    assert torch.equal(decode(save(palette)), pixels_of(palette.convert("RGB")))
    bilevel = noise("L").convert("1")
    assert torch.equal(decode(save(bilevel)), pixels_of(bilevel.convert("RGB")))


def test_cmyk_jpegs_become_rgb(save: Save) -> None:
    decoded = decode(save(Image.new("CMYK", (8, 6), (255, 0, 0, 0)), "JPEG", quality=95))  # pure cyan
    assert decoded[0].max() < 10
    assert decoded[1:].min() > 245


def test_grey_images_are_repeated_for_a_colour_bundle(save: Save) -> None:
    grey = noise("L")
    decoded = decode(save(grey))
    assert torch.equal(decoded, pixels_of(grey).expand(3, -1, -1))


def test_a_grey_bundle_takes_grey_pixels_and_refuses_colours(save: Save) -> None:
    grey = noise("L")
    for image in (grey, grey.convert("RGB")):
        assert torch.equal(decode(save(image), GREY), pixels_of(grey))
    red, green, blue = grey.convert("RGB").split()
    blue.putpixel((7, 5), 255 - int(np.array(grey)[5, 7]))
    coloured = Image.merge("RGB", (red, green, blue))
    with pytest.raises(DecodingError, match="has colours"):
        decode(save(coloured), GREY)


def test_another_size_names_both_and_the_way_out(save: Save) -> None:
    with pytest.raises(DecodingError, match=r"9x6 pixels, the bundle's size is 8x6; resize=true") as caught:
        decode(save(noise(size=(9, 6))))
    assert caught.value.status == 422


def test_resize_is_bicubic_and_antialiased(save: Save) -> None:
    image = noise(size=(80, 60))
    expected = image.resize((8, 6), Image.Resampling.BICUBIC)
    assert torch.equal(decode(save(image), resize=True), pixels_of(expected))


def test_resize_leaves_the_right_size_alone(save: Save) -> None:
    image = noise()
    assert torch.equal(decode(save(image), resize=True), pixels_of(image))


def test_compressed_text_bombs_are_refused(save: Save) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "a" * 70_000_000, zip=True)
    with pytest.raises(DecodingError):
        decode(save(noise(), pnginfo=info))


BOMBS = [("PNG", (9000, 9000)), ("WEBP", (8000, 8000))]
MEASURE = """
import sys, time
from pathlib import Path
from models.manifest import ImageShape
from service.decoding import decode_image
from service.errors import TooManyPixelsError

def peak():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

def refuse(content):
    try:
        decode_image(content, ImageShape(height=32, width=32, channels=3), 4_000_000, True)
    except TooManyPixelsError:
        return
    sys.exit("it was decoded")

content = Path(sys.argv[1]).read_bytes()
refuse(content)  # Pillow's plugins are loaded at their first use
Path("/proc/self/clear_refs").write_text("5")  # resets the peak to what is used now
before, started = peak(), time.process_time()
refuse(content)
print(time.process_time() - started, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to measure a process's peak")
@pytest.mark.parametrize(("kind", "size"), BOMBS)
def test_small_bombs_cost_neither_time_nor_memory(save: Save, tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    """In a process of its own, whose peak of resident memory the kernel measures."""
    bomb = tmp_path / "bomb"
    bomb.write_bytes(save(Image.new("1", size), kind, lossless=True))
    assert bomb.stat().st_size < 10_000 < size[0] * size[1] // 8
    command = [sys.executable, "-c", MEASURE, str(bomb)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    seconds, grown = map(float, output.split())
    assert seconds < 0.05
    assert grown < 20_000_000


def mutate(content: bytes, other: bytes, generator: random.Random) -> bytes:
    """Change bytes, cut the end off, repeat a part, or graft another file's part in; the magic bytes stay."""
    changed, start = bytearray(content), generator.randrange(8, len(content))
    end = min(len(changed), start + generator.randint(1, 64))
    match generator.randrange(6):
        case 0:
            del changed[start:]
        case 1:
            changed[start:start] = changed[start:end]
        case 2:
            changed[start:end] = other[start:end]
        case _:
            for _ in range(generator.randint(1, 4)):
                changed[generator.randrange(8, len(changed))] = generator.randrange(256)
    return bytes(changed)


def test_mutated_files_decode_or_fail_as_request_errors(save: Save) -> None:
    generator = random.Random(0)
    rgba = noise()
    rgba.putalpha(255)
    exif = Image.Exif()
    exif[0x0112] = 3
    corpus = [
        save(noise()),
        save(rgba),
        save(noise().quantize(8)),
        save(noise(), "JPEG", exif=exif),
        save(rgba, "WEBP"),
        save(noise("L"), "WEBP", lossless=True),
        save(noise("CMYK"), "JPEG", progressive=True),
        save(noise("L").convert("1"), optimize=True),
    ]
    statuses: set[int] = set()
    for _ in range(4000):
        content = mutate(generator.choice(corpus), generator.choice(corpus), generator)
        try:
            decoded = decode(content, resize=True)
        except RequestError as error:
            statuses.add(error.status)
        else:
            assert decoded.shape == (3, 6, 8)
    assert 422 in statuses
    assert statuses <= {413, 415, 422}
