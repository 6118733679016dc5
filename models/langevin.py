"""Langevin dynamics: one step and one loop, used by training, purification and evaluation alike.

The chain targets exp(-U(x) / T). `step_size` is the standard deviation of the noise a step adds; the drift is
step_size^2 / (2 T) * grad U. Step and conventions follow EBM Life Cycle (arXiv 2205.12243).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from models.config import Frozen
from models.gradients import Energy, Gradient, energy_gradient, gradient_of
from models.precision import Precision

Noise = Callable[[Tensor], Tensor]
"""Standard normal noise of the argument's shape, dtype and device."""


class LangevinConfig(Frozen):
    """How a chain runs. `precision` is the energy network's; the chain itself stays in its own dtype."""

    num_steps: int = Field(ge=0)
    step_size: float = Field(gt=0)
    temperature: float = Field(gt=0)
    precision: Precision = "float32"

    @property
    def drift_rate(self) -> float:
        """step_size^2 / (2 T), what multiplies grad U in a step."""
        return self.step_size**2 / (2.0 * self.temperature)


class LangevinInfo(NamedTuple):
    """What a human or a diagnostic needs from a step: U before it and the length of its drift, each [B]."""

    energy: Tensor
    drift_norm: Tensor


Step = Callable[[Tensor], tuple[Tensor, "LangevinInfo"]]
"""One step of a batch of chains."""
Callback = Callable[[int, Tensor, LangevinInfo], None]
"""Called after each step with its index (from 0), the new state [B, ...] and the step's info."""


def add_energies(terms: Sequence[tuple[Energy, float]], tau: float | None = None) -> Energy:
    """U(x) = sum_i f_i(x) / T_i + |x|^2 / (2 tau^2), to be sampled at temperature 1.

    Args:
        terms: energies with their own temperatures, for instance [(f, T), (prior, T_prior)].
        tau: standard deviation of the Gaussian term, in pixel units of [-1, 1]; None leaves it out.
    """

    def total(x: Tensor) -> Tensor:
        energy = x.new_zeros(len(x))
        for f, temperature in terms:
            energy = energy + f(x).float() / temperature
        if tau is not None:
            energy = energy + x.flatten(1).square().sum(1) / (2.0 * tau**2)
        return energy

    return total


def langevin_step(
    energy: Energy, x: Tensor, config: LangevinConfig, randn_like: Noise = torch.randn_like
) -> tuple[Tensor, LangevinInfo]:
    """x <- x - step_size^2 / (2 T) * dU/dx + step_size * z,  z ~ N(0, I); x is [B, ...].

    The result carries no gradient: differentiating through a chain is a deliberate act, done elsewhere.
    """
    gradient = partial(energy_gradient, energy, precision=config.precision)
    return langevin_transition(gradient, x, config.step_size, config.drift_rate, randn_like)


def langevin_transition(
    gradient: Gradient,
    x: Tensor,
    step_size: float | Tensor,
    drift_rate: float | Tensor,
    randn_like: Noise = torch.randn_like,
) -> tuple[Tensor, LangevinInfo]:
    """The same step; `step_size` and `drift_rate` may be [B, 1, ...], for chains of different settings in one batch."""
    u, grad = gradient(x)
    x = x.detach()
    drift = -drift_rate * grad
    info = LangevinInfo(u, drift.flatten(1).norm(dim=1))
    return x + drift + step_size * randn_like(x), info


def run_langevin(
    energy: Energy,
    x: Tensor,
    config: LangevinConfig,
    num_steps: Tensor | None = None,
    randn_like: Noise = torch.randn_like,
    callback: Callback | None = None,
) -> tuple[Tensor, LangevinInfo]:
    """`config.num_steps` steps from x [B, ...]; the info holds each chain's last energy and mean drift length.

    Args:
        num_steps: int64 [B], each chain's own number of steps instead of the common one; a chain that has run its
            steps leaves the batch.
    """
    gradient, settings = gradient_of(energy, config.precision), (config.step_size, config.drift_rate)

    def step_on(state: Tensor) -> tuple[Tensor, LangevinInfo]:
        return langevin_transition(gradient, state, *settings, randn_like)

    if num_steps is None:
        return _run(step_on, x, config.num_steps, callback)
    if num_steps.shape != (len(x),) or int(num_steps.min()) < 0:
        raise ValueError(f"num_steps must hold {len(x)} counts of at least 0, got {num_steps.tolist()}")
    state = x.detach().clone()
    last_energy, drift_sum = x.new_zeros(len(x)), x.new_zeros(len(x))
    for step in range(int(num_steps.max())):
        active = (num_steps > step).nonzero().squeeze(1)
        moved, info = step_on(state[active])
        state = state.index_copy(0, active, moved)
        last_energy = last_energy.index_copy(0, active, info.energy.to(last_energy.dtype))
        drift_sum = drift_sum.index_add(0, active, info.drift_norm)
        if callback is not None:
            callback(step, state, LangevinInfo(last_energy, info.drift_norm))
    return state, LangevinInfo(last_energy, drift_sum / num_steps.clamp(min=1))


def _run(step_on: Step, x: Tensor, num_steps: int, callback: Callback | None) -> tuple[Tensor, LangevinInfo]:
    x = x.detach()
    last_energy, drift_sum = x.new_zeros(len(x)), x.new_zeros(len(x))
    for step in range(num_steps):
        x, info = step_on(x)
        last_energy, drift_sum = info.energy, drift_sum + info.drift_norm
        if callback is not None:
            callback(step, x, info)
    return x, LangevinInfo(last_energy, drift_sum / max(num_steps, 1))


def seeded_noise(generator: torch.Generator) -> Noise:
    """Noise drawn from `generator`, which must live on the chains' device."""

    def randn_like(x: Tensor) -> Tensor:
        return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)

    return randn_like
