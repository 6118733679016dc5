"""Pictures with known pixels, as files and as sources of encoded images."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.data_decoding import Encoded

Pixels = npt.NDArray[np.uint8]


def coloured(number: int, side: int = 8) -> Pixels:
    """A picture [side, side, 3] that tells its number: red and green hold it, blue tells left from right."""
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[:, :, 0], pixels[:, :, 1] = number % 256, number // 256
    pixels[:, : side // 2, 2] = 255
    return pixels


def number_of(image: npt.NDArray[np.uint8]) -> int:
    """The number of a `coloured` picture [C, H, W]."""
    return int(image[0, 0, 0]) + 256 * int(image[1, 0, 0])


def encode(pixels: Pixels, kind: str = "PNG", **options: object) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    return buffer.getvalue()


def write_classes(root: Path, counts: dict[str, int]) -> Path:
    """A folder a class, with so many numbered pictures each; numbers go on through all classes."""
    number = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for _ in range(count):
            (root / name / f"{number:04}.png").write_bytes(encode(coloured(number)))
            number += 1
    return root


@dataclass(frozen=True)
class Shards:
    """A table in memory: so many numbered pictures in each shard, labelled with their shard."""

    counts: Sequence[int]
    name: str = "toy train"
    class_names: tuple[str, ...] = ()
    identity: tuple[object, ...] = ("toy",)

    @property
    def shards(self) -> int:
        return len(self.counts)

    def __len__(self) -> int:
        return sum(self.counts)

    def read(self, shard: int, first: int) -> Iterator[Encoded]:
        start = sum(self.counts[:shard])
        for row in range(first, self.counts[shard]):
            yield Encoded(encode(coloured(start + row)), shard, f"toy, row {start + row}")
