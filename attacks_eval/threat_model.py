"""What an attacker may do to an image."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.config import Frozen
from models.pixels import budget_to_unit


class ThreatModel(Frozen):
    """An L_p ball of radius `budget`, in 1/255 units, around the clean image and inside [0, 1]."""

    norm: Literal["linf"] = "linf"
    budget: float = Field(default=8.0, ge=0, le=255)

    @property
    def radius(self) -> float:
        """The budget in [0, 1] pixel units."""
        return budget_to_unit(self.budget)

    def project(self, candidates: Tensor, clean: Tensor) -> Tensor:
        """The nearest images to `candidates` that the attacker may send; both [B, C, H, W] in [0, 1] units."""
        inside = torch.clamp(candidates, clean - self.radius, clean + self.radius)
        return inside.clamp(0.0, 1.0)


def check_unit_range(images: Tensor) -> None:
    """Raise ValueError unless the images are floats in [0, 1]."""
    if not images.is_floating_point():
        raise ValueError(f"expected float images in [0, 1], got {images.dtype}; divide by 255 first")
    low, high = (float(bound) for bound in images.detach().aminmax())
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"expected images in [0, 1], got [{low:.4g}, {high:.4g}]; divide by 255 or undo a normalisation"
        )
