"""A generator that learns beside an energy: regression on where the chains that it started have come to.

Cooperative learning (Xie et al. 2018, arXiv 1609.09408) with persistent chains, as in short-run learning of EBM Life
Cycle (arXiv 2205.12243): a chain that did not restart is still regressed on with the latent that started it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from models.training.average import WeightAverage
from models.training.distributed import World
from models.training.optimization import clip_each, set_learning_rate
from models.training.schedules import value_at
from models.training.sections import FromGenerator


class GeneratorLearning:
    """The generator, its optimizer and its averaged copy."""

    def __init__(self, network: nn.Module, config: FromGenerator) -> None:
        self.network, self._config = network, config
        self.average = WeightAverage(network, config.average_decay)
        self._optimizer = torch.optim.Adam(network.parameters(), value_at(config.learning_rates, 0))

    def learn(self, latents: Tensor, targets: Tensor, update: int, clip: float | None, world: World) -> float:
        """One step on sum |x - G(z)|^2 / B, z [B, Z] and x [B, C, H, W]; returns the loss before it.

        In training mode, so that batch norm's statistics follow the weights. Every process takes the whole batch, for
        those statistics are the batch's; it is cheap beside the chains. Averaging the gradients then changes nothing
        but what devices may have rounded apart.
        """
        set_learning_rate(self._optimizer, value_at(self._config.learning_rates, update))
        self.network.train()
        loss = (targets - self.network(latents)).square().sum() / len(latents)
        self._optimizer.zero_grad(set_to_none=True)
        (loss / world.size).backward()
        world.sum_gradients(self.network.parameters())
        clip_each(self.network.parameters(), clip)
        self._optimizer.step()
        self.average.update(self.network)
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "average_updates": self.average.updates,
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.updates = state["average_updates"]
        self._optimizer.load_state_dict(state["optimizer"])
