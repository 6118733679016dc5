"""A few numbers that stand for a chain's state: its energy, its mean pixel, its place along the data's main axes."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Summaries:
    """`mean` [D] and orthonormal `components` [K, D] of flattened data images."""

    mean: Tensor
    components: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """What each summary is, in order."""
        return ("energy", "mean pixel", *(f"component {number}" for number in range(1, len(self.components) + 1)))

    def __call__(self, states: Tensor, energies: Tensor) -> Tensor:
        """States [N, ...] and their energies [N] to [N, 2 + K], float32 on the CPU."""
        flat = states.flatten(1).float()
        places = (flat - self.mean.to(flat)) @ self.components.to(flat).T
        return torch.cat([energies.float()[:, None], flat.mean(1, keepdim=True), places], dim=1).cpu()


def summaries_of(images: Tensor, components: int) -> Summaries:
    """The first principal components of images [N, ...], by the singular vectors of the centred images."""
    flat = images.flatten(1).float().cpu()
    if not 0 <= components <= min(flat.shape):
        raise ValueError(f"{len(flat)} images of {flat.shape[1]} pixels do not have {components} components")
    mean = flat.mean(0)
    directions: Tensor = torch.linalg.svd(flat - mean, full_matrices=False)[2][:components]
    # A singular vector's sign is arbitrary: the largest entry is made positive, so that every machine agrees.
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return Summaries(mean, directions * largest.sign())
