"""The gradient that reaches an energy's weights through the chains that it moved.

Contrastive divergence leaves it out. IGEBM (arXiv 1903.08689) adds the energy of a chain's end, as a function of the
weights by which the chain moved and not of those that judge it: chains then learn to arrive at low energies. Improved
contrastive divergence (arXiv 2012.01316) takes the last step alone, as `num_steps = 1` does here.
"""

import torch
from torch import Tensor

from models.banks import Fresh
from models.composed import Conditional
from models.gradients import Energy, rows_of
from models.langevin import LangevinConfig, boxed, drift_of
from models.noise import Noise, SeededNoise
from models.training.distributed import NoiseOfShare
from models.training.energy_state import EnergyTraining
from models.training.sections import ImplicitRun


def run_last_steps(
    training: EnergyTraining, energy: Energy, chains: Fresh, sampler: LangevinConfig, config: ImplicitRun
) -> tuple[Tensor, Tensor, Tensor]:
    """The last `config.kl_steps` steps of all chains [N, ...] by their potential.

    Returns:
        Where they come to, the sum [N] of their drift lengths, and this process's part of kl_weight * mean f(ends),
        whose gradient reaches the weights through the ends alone.
    """
    network, world, count = training.network, training.world, len(chains.images)
    share = world.share(count)
    noise = NoiseOfShare(SeededNoise(training.chain_generator), count, world)
    network.eval()  # as in the steps before
    ends, lengths = followed(rows_of(energy, share), chains.images[share], sampler, config.kl_steps, noise)
    network.requires_grad_(False)
    judge = network if chains.labels is None else Conditional(network, chains.labels[share])
    term = config.kl_weight * judge(ends).float().sum() / count
    network.requires_grad_(True).train()
    return world.join(ends.detach(), count), world.join(lengths, count), term


def followed(
    energy: Energy, x: Tensor, config: LangevinConfig, num_steps: int, randn_like: Noise
) -> tuple[Tensor, Tensor]:
    """Steps as `langevin_transition` makes them, from x [B, ...], with the graph of what the energy's weights did.

    Returns:
        The ends, and the sum [B] of the steps' drift lengths, without a graph.
    """
    x = x.detach().requires_grad_(True)
    lengths = x.new_zeros(len(x))
    for _ in range(num_steps):
        (grad,) = torch.autograd.grad(energy(x).float().sum(), x, create_graph=True)
        drift = drift_of(grad, config.drift_rate, config.gradient_clamp)
        lengths = lengths + drift.detach().flatten(1).norm(dim=1)
        x = boxed(x + drift + config.step_size * randn_like(x), config.box)
    return x, lengths
