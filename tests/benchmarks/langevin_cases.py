"""The networks and batches that samplers are compared on, made anew from a seed, in any process alike."""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from models.config import Frozen
from models.networks import build_network

STEP_SIZE, TEMPERATURE = 0.01, 1e-4
SEED = 0


class Case(Frozen):
    """A network, as `build_network` knows it, the side of its square images, and the batches that it is measured on."""

    network: str
    width: int = Field(gt=0)
    side: int = Field(gt=0)
    batches: tuple[int, ...] = Field(min_length=1)

    @property
    def title(self) -> str:
        return f"{self.network} {self.width}"


@dataclass(frozen=True)
class Problem:
    """A network with random weights, without gradients for them, and images x [B, 3, S, S] in [-1, 1]."""

    network: nn.Module
    x: Tensor


def make_problem(case: Case, batch: int) -> Problem:
    """The same for equal arguments; the global generator stays as it was."""
    arguments = {"width": case.width} | ({"image_size": case.side} if case.network == "light" else {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = build_network(case.network, arguments).eval().requires_grad_(False)
        return Problem(network, torch.rand(batch, 3, case.side, case.side) * 2 - 1)
