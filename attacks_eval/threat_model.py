"""What an attacker may do to an image."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.config import Frozen
from models.pixels import LEVELS, budget_to_unit

Norm = Literal["linf", "l2"]


class ThreatModel(Frozen):
    """An L_p ball of radius `budget`, in 1/255 units, around the clean image and inside [0, 1].

    The L2 length of a whole image may exceed 255 units; an L-infinity radius cannot.
    """

    norm: Norm = "linf"
    budget: float = Field(default=8.0, ge=0)

    @property
    def radius(self) -> float:
        """The budget in [0, 1] pixel units."""
        return budget_to_unit(self.budget)

    @property
    def name(self) -> str:
        """For people: `L-infinity 8/255` or `L2 0.5`."""
        return f"L-infinity {self.budget:g}/255" if self.norm == "linf" else f"L2 {self.radius:.4g}"

    def project(self, candidates: Tensor, clean: Tensor) -> Tensor:
        """The nearest images to `candidates` that the attacker may send; both [..., C, H, W] in [0, 1] units.

        L2 scales back to the ball and then clips, which stays inside because the clean image is.
        """
        if self.norm == "linf":
            inside = torch.clamp(candidates, clean - self.radius, clean + self.radius)
        else:
            change = candidates - clean
            length = _length(change).clamp(min=1e-12)
            inside = clean + change * (self.radius / length).clamp(max=1.0)
        return inside.clamp(0.0, 1.0)

    def ascent(self, gradient: Tensor) -> Tensor:
        """The direction of length one, in this norm, in which a linear loss of that gradient grows fastest."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / _length(gradient).clamp(min=1e-12)

    def random_start(self, clean: Tensor, uniform: Tensor) -> Tensor:
        """A point of the ball from `uniform` numbers in [0, 1) of the image's shape."""
        noise = uniform * 2.0 - 1.0
        if self.norm == "l2":
            noise = noise / _length(noise).clamp(min=1e-12)
        return self.project(clean + self.radius * noise, clean)

    def round_inside(self, adversarial: Tensor, clean: Tensor) -> Tensor:
        """uint8 levels that a file can hold, still inside the ball around the clean image (itself on whole levels).

        L-infinity: the nearest levels at most floor(budget) away. L2: the nearest levels to the change, shortened by
        half a percent at a time until its rounding is inside.
        """
        centre = (clean * LEVELS).round()
        change = adversarial * LEVELS - centre
        limit = math.floor(self.budget + 1e-6)
        change = change.round().clamp(-limit, limit) if self.norm == "linf" else self._shortened(change)
        return (centre + change).clamp(0, LEVELS).to(torch.uint8)

    def _shortened(self, change: Tensor) -> Tensor:
        """Whole-level L2 changes no longer than the budget, in 1/255 units."""
        rounded = change.round()
        for percent in range(199, -1, -1):
            outside = _length(rounded) > self.budget + 1e-4
            if not outside.any():
                break
            rounded = torch.where(outside, (change * (percent / 200)).round(), rounded)
        return rounded

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """The norm of a - b in [0, 1] pixel units, over the last three dimensions."""
        change = (a - b).flatten(-3)
        length: Tensor = change.abs().amax(-1) if self.norm == "linf" else torch.linalg.vector_norm(change, dim=-1)
        return length


def Linf(radius: float) -> ThreatModel:  # noqa: N802 (the field's name)
    """An L-infinity threat from a fraction of the pixel range, such as 8/255."""
    return ThreatModel(norm="linf", budget=_fraction(radius) * 255)


def L2(radius: float) -> ThreatModel:  # noqa: N802
    """An L2 threat from a length in [0, 1] pixel units, such as 0.5."""
    return ThreatModel(norm="l2", budget=radius * 255)


def check_unit_range(images: Tensor) -> None:
    """Raise ValueError unless the images are floats in [0, 1]."""
    if not images.is_floating_point():
        raise ValueError(f"expected float images in [0, 1], got {images.dtype}; divide by 255 first")
    low, high = (float(bound) for bound in images.detach().aminmax())
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(
            f"expected images in [0, 1], got [{low:.4g}, {high:.4g}]; divide by 255 or undo a normalisation"
        )


def _fraction(radius: float) -> float:
    if not 0.0 <= radius <= 1.0:
        raise ValueError(f"expected an L-infinity radius as a fraction of the range, such as 8/255; got {radius}")
    return radius


def _length(change: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(change, dim=(-3, -2, -1), keepdim=True)
    return length
