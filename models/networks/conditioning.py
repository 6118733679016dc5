"""Layers whose bias and gain are a class's own, as the energies of IGEBM condition on labels (arXiv 1903.08689)."""

import torch
from torch import Tensor, nn

from models.errors import NetworkError


class Conditioned(nn.Module):
    """gain[y] * layer(x + shift[y]) over the channels (axis 1) of x [B, C, ...]; without classes, one row for all.

    Args:
        classes: rows of shift and gain; 0 is one row, and no labels.
        gain: where every gain starts; None is no gain.
    """

    def __init__(self, layer: nn.Module, inputs: int, outputs: int, classes: int, gain: float | None = None) -> None:
        super().__init__()
        rows = max(classes, 1)
        self.layer = layer
        self.shift = nn.Parameter(torch.zeros(rows, inputs))
        self.gain = None if gain is None else nn.Parameter(torch.full((rows, outputs), gain))

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        out: Tensor = self.layer(x + _rows(self.shift, labels, x.dim()))
        return out if self.gain is None else out * _rows(self.gain, labels, out.dim())


def check_labels(x: Tensor, labels: Tensor | None, classes: int) -> None:
    """Raise NetworkError unless there is one label for each of x [B, ...], or none where there are no classes."""
    found = "none" if labels is None else f"labels of shape {list(labels.shape)}"
    if classes and (labels is None or labels.shape != (len(x),)):
        raise NetworkError(f"an energy of {classes} classes reads [{len(x)}] labels for these states, got {found}")
    if not classes and labels is not None:
        raise NetworkError(f"this energy has no classes, got {found}")


def classes_of(network: nn.Module) -> int:
    """How many labels a network reads beside its images; 0 where it reads images alone."""
    return int(getattr(network, "classes", 0))


def _rows(table: Tensor, labels: Tensor | None, dimensions: int) -> Tensor:
    rows = table if labels is None else table[labels]
    return rows.view(*rows.shape, *(1,) * (dimensions - 2))
