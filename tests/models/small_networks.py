"""Networks that are small or whose answer is known, by name; as a program, `python -m models` with them."""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from models.__main__ import main
from models.networks import ARCHITECTURES


class SmallGenerator(nn.Module):
    """z [B, Z] -> [B, 1, 8, 8] in [-1, 1]: a linear map, batch norm when wanted, tanh."""

    def __init__(self, latent_size: int = 4, batch_norm: bool = True) -> None:
        super().__init__()
        self.latent_size = latent_size
        # Batch norm would take a bias off again; Adam makes steps of its gradient, which is rounding alone.
        self.linear = nn.Linear(latent_size, 64, bias=not batch_norm)
        self.norm: nn.Module = nn.BatchNorm1d(64) if batch_norm else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.norm(self.linear(z))
        return torch.tanh(image).view(-1, 1, 8, 8)


class QuadraticEnergy(nn.Module):
    """f(x) = curvature / 2 |x|^2."""

    def __init__(self, curvature: float = 1.0) -> None:
        super().__init__()
        self.curvature = nn.Parameter(torch.tensor(curvature))

    def forward(self, x: Tensor) -> Tensor:
        return self.curvature / 2 * x.flatten(1).square().sum(1)


class CentredEnergy(nn.Module):
    """f(x | y) = |x - c[y]|^2 / 2, c learned: [B, 1, 8, 8] and [B] -> [B]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.classes, self.centres = classes, nn.Parameter(torch.zeros(classes, 1, 8, 8))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return (x - self.centres[labels]).flatten(1).square().sum(1) / 2


SMALL: dict[str, type[nn.Module]] = {
    "small_generator": SmallGenerator,
    "quadratic": QuadraticEnergy,
    "centred": CentredEnergy,
}

if __name__ == "__main__":
    ARCHITECTURES.update(SMALL)
    status = main(sys.argv[1:])
    threads = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name], f"the process group outlives its run: {threads}"
    sys.exit(status)
