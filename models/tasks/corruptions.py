"""Ways to spoil images, each pixel's fate a function of the image's own stream."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from models.config import Frozen
from models.errors import ConfigError
from models.streams import Stream

Side = Literal["lower", "upper", "left", "right"]
EXPECTED = f"salt-pepper=SHARE, box=PIXELS or half={'|'.join(get_args(Side))}"


@dataclass(frozen=True)
class Corrupted:
    """Images [B, C, H, W] in [-1, 1], and bool [B, 1, H, W]: which of their pixels are lost."""

    images: Tensor
    mask: Tensor


class SaltAndPepper(Frozen):
    """A `share` of the pixels becomes black or white, one as often as the other."""

    share: float = Field(gt=0, le=1)
    marked: Literal[False] = False

    def __call__(self, images: Tensor, stream: Stream) -> Corrupted:
        """Image i of [B, C, H, W] draws from the stream's child i."""
        drawn = torch.stack([stream.child(row).uniform(images.shape[2:]) for row in range(len(images))])
        drawn = drawn.unsqueeze(1).to(images.device)
        mask = drawn < self.share
        salt = torch.where(drawn < self.share / 2.0, 1.0, -1.0).to(images.dtype)
        return Corrupted(torch.where(mask, salt, images), mask)


class Box(Frozen):
    """A square of `side` pixels is lost, anywhere inside the image."""

    side: int = Field(ge=1)
    marked: Literal[True] = True

    def __call__(self, images: Tensor, stream: Stream) -> Corrupted:
        """Image i of [B, C, H, W] draws its place from the stream's child i; raises ConfigError when it has none."""
        height, width = images.shape[2:]
        if self.side > min(height, width):
            raise ConfigError(f"box={self.side}: the images are {width}x{height} pixels, expected a side within them")
        mask = torch.zeros(len(images), 1, height, width, dtype=torch.bool, device=images.device)
        for row in range(len(images)):
            drawn = stream.child(row).uniform((2,)).tolist()
            top, left = (int(u * (size - self.side + 1)) for u, size in zip(drawn, (height, width), strict=True))
            mask[row, :, top : top + self.side, left : left + self.side] = True
        return Corrupted(images.masked_fill(mask, 0.0), mask)


class Half(Frozen):
    """One half of the image is lost."""

    side: Side
    marked: Literal[True] = True

    def __call__(self, images: Tensor, stream: Stream) -> Corrupted:
        """Images [B, C, H, W]; nothing is drawn."""
        height, width = images.shape[2:]
        mask = torch.zeros(1, 1, height, width, dtype=torch.bool, device=images.device)
        rows = {"lower": slice(height // 2, None), "upper": slice(height // 2)}.get(self.side, slice(None))
        columns = {"right": slice(width // 2, None), "left": slice(width // 2)}.get(self.side, slice(None))
        mask[:, :, rows, columns] = True
        return Corrupted(images.masked_fill(mask, 0.0), mask.expand(len(images), -1, -1, -1))


Corruption = SaltAndPepper | Box | Half
"""`marked`: whether the restorer is told which pixels are lost."""


def parse_corruption(text: str) -> Corruption:
    """salt-pepper=0.1, box=16 or half=lower; raises ConfigError that names what is wrong."""
    kind, _, value = text.partition("=")
    try:
        if kind == "salt-pepper":
            return SaltAndPepper(share=float(value))
        if kind == "box":
            return Box(side=int(value))
        if kind == "half":
            return Half.model_validate({"side": value})
    except ValueError as error:  # pydantic's are too
        raise ConfigError(
            f"corruption {text!r}: expected {EXPECTED}, a share in (0, 1], a side of at least 1"
        ) from error
    raise ConfigError(f"corruption {text!r}: expected {EXPECTED}")
