"""Everything that changes while an energy learns, and what a checkpoint holds of it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.data import Batches
from models.errors import CheckpointError
from models.noise import SeededNoise
from models.pixels import dequantise_within, from_uint8
from models.training.average import WeightAverage
from models.training.batches import DataStreams
from models.training.distributed import ALONE, NoiseOfShare, World
from models.training.generator_learning import GeneratorLearning
from models.training.initialisers import Initialiser


@dataclass
class EnergyTraining:
    """The state of a training; all processes of `world` hold the same, but for their shares of the banks.

    `update` counts warm-start updates first, then the regime's; `usual_norm` is the running mean of the warm start's
    gradient norm; `chains` and `saved_chains` are None until the regime begins or a checkpoint brings them.
    """

    network: nn.Module
    average: WeightAverage
    optimizer: torch.optim.Adam
    data: DataStreams
    chain_generator: torch.Generator
    world: World = ALONE
    generator: GeneratorLearning | None = None
    fixed: dict[str, str] = field(default_factory=dict)
    """SHA-256 of networks that stand still beside the energy, by their role."""
    chains: Initialiser | None = None
    saved_chains: dict[str, Any] | None = None
    update: int = 0
    usual_norm: float = math.inf

    @property
    def device(self) -> torch.device:
        """Where chains and networks live."""
        return self.chain_generator.device

    def images(self, batches: Batches, count: int, noise: float = 0.0, dequantised: bool = False) -> Iterator[Tensor]:
        """This process's parts of batches [count, C, H, W] in [-1, 1], with Gaussian noise of standard deviation
        `noise`; dequantised, they are uniform within their levels."""
        randn_like = NoiseOfShare(SeededNoise(self.chain_generator), count, self.world)
        for batch in batches:
            pixels = batch.to(self.device)
            if dequantised:
                uniform = torch.rand(count, *pixels.shape[1:], generator=self.chain_generator, device=self.device)
                images = dequantise_within(pixels, uniform[self.world.share(count)])
            else:
                images = from_uint8(pixels)
            yield images + noise * randn_like(images) if noise else images

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it loads without unpickling code; every process must call it."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "average_updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "generator": None if self.generator is None else self.generator.state_dict(),
            "fixed": self.fixed,
            "bank": None if self.chains is None else self.chains.state_dict(),
            "data": self.data.state_dict(),
            "chain_generator": self.chain_generator.get_state(),
            "usual_norm": self.usual_norm,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`; raises CheckpointError where the networks beside the energy are others than before."""
        for role, digest in self.fixed.items():
            if (before := state["fixed"].get(role)) != digest:
                raise CheckpointError(f"the {role} has weights {digest[:16]}, the run began with {str(before)[:16]}")
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.updates = state["average_updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.generator is not None:
            if state.get("generator") is None:
                raise CheckpointError("the run has no generator to go on with: start another in a new folder")
            self.generator.load_state_dict(state["generator"])
        self.saved_chains = state["bank"]
        self.data.load_state_dict(state["data"])
        self.chain_generator.set_state(state["chain_generator"])
        self.usual_norm = state["usual_norm"]
        self.update = state["update"]

    def check_identical(self) -> None:
        """Raise TrainingDiverged unless all processes hold the same weights."""
        networks = [self.network] if self.generator is None else [self.network, self.generator.network]
        tensors = [tensor for network in networks for tensor in network.state_dict().values()]
        self.world.check_identical(tensors, self.update)
