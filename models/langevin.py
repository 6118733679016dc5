"""Langevin dynamics: one step and one loop, used by training, purification and evaluation alike.

On a CPU chains run apart: each core moves a few of them through all their steps, with operations that use one core.
PyTorch's own way, every operation split over all cores, meets at a barrier twenty times a step.

The chain targets exp(-U(x) / T). `step_size` is the standard deviation of the noise a step adds; the drift is
step_size^2 / (2 T) * grad U. Step and conventions follow EBM Life Cycle (arXiv 2205.12243).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from models.chain_threads import chain_threads, shares
from models.composed import EnergySum
from models.config import Frozen
from models.gradients import Energy, Gradient, energy_gradient, gradient_of
from models.noise import UNSEEDED, DivisibleNoise, Noise
from models.precision import Precision

PIXELS_APART = 16 * 32 * 32
"""Pixels of the chains that a core moves together: enough to fill its vectors, few enough to stay in its cache."""


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


Step = Callable[..., tuple[Tensor, LangevinInfo]]
"""`langevin_transition` of one energy: called with the states and `randn_like`."""
Callback = Callable[[int, Tensor, LangevinInfo], None]
"""Called after each step with its index (from 0), the new state [B, ...] and the step's info."""


def add_energies(terms: Sequence[tuple[Energy, float]], tau: float | None = None) -> EnergySum:
    """U(x) = sum_i f_i(x) / T_i + |x|^2 / (2 tau^2), to be sampled at temperature 1.

    Args:
        terms: energies with their own temperatures, for instance [(f, T), (prior, T_prior)].
        tau: standard deviation of the Gaussian term, in pixel units of [-1, 1]; None leaves it out.
    """
    return EnergySum(tuple(terms), tau)


def langevin_step(
    energy: Energy, x: Tensor, config: LangevinConfig, randn_like: Noise = UNSEEDED
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
    randn_like: Noise = UNSEEDED,
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
    randn_like: Noise = UNSEEDED,
    callback: Callback | None = None,
) -> tuple[Tensor, LangevinInfo]:
    """`config.num_steps` steps from x [B, ...]; the info holds each chain's last energy and mean drift length.

    With divisible noise on a CPU, and without `callback` and `num_steps`, chains of images [B, C, H, W] run apart:
    `energy` is then called from several threads, each with some of the chains.

    Args:
        num_steps: int64 [B], each chain's own number of steps instead of the common one; a chain that has run its
            steps leaves the batch.
    """
    step_on = partial(langevin_transition, gradient_of(energy, config.precision))
    step_on = partial(step_on, step_size=config.step_size, drift_rate=config.drift_rate)
    if num_steps is not None:
        return _run_each_for(step_on, x, num_steps, randn_like, callback)
    x = x.contiguous()
    if x.device.type != "cpu" or x.dim() != 4 or len(x) == 0 or not isinstance(randn_like, DivisibleNoise):
        return _run(step_on, x, config.num_steps, randn_like, callback)
    whole = [slice(len(x))]
    threads = chain_threads()
    parts = whole if callback is not None else _apart(len(x), math.prod(x.shape[2:]), threads.count)
    noises = randn_like.divide(parts)
    if parts == whole:
        return _run(step_on, x, config.num_steps, noises[0], callback)
    runs = [partial(_run, step_on, x[part], config.num_steps, noise) for part, noise in zip(parts, noises, strict=True)]
    states, infos = zip(*threads.map(lambda run: run(), runs), strict=True)
    return torch.cat(states), LangevinInfo(*map(torch.cat, zip(*infos, strict=True)))


def _apart(chains: int, pixels: int, cores: int) -> list[slice]:
    """Equal parts, as many for each core; all together where a core would have no chain."""
    if chains < cores:
        return [slice(chains)]
    most = max(1, PIXELS_APART // pixels)
    return shares(chains, cores * math.ceil(chains / (cores * most)))


def _run(
    step_on: Step, x: Tensor, num_steps: int, randn_like: Noise, callback: Callback | None = None
) -> tuple[Tensor, LangevinInfo]:
    x = x.detach().clone()  # a thread's own, whatever mode its caller is in
    last_energy, drift_sum = x.new_zeros(len(x)), x.new_zeros(len(x))
    for step in range(num_steps):
        x, info = step_on(x, randn_like=randn_like)
        last_energy, drift_sum = info.energy, drift_sum + info.drift_norm
        if callback is not None:
            callback(step, x, info)
    return x, LangevinInfo(last_energy, drift_sum / max(num_steps, 1))


def _run_each_for(
    step_on: Step, x: Tensor, num_steps: Tensor, randn_like: Noise, callback: Callback | None
) -> tuple[Tensor, LangevinInfo]:
    if num_steps.shape != (len(x),) or int(num_steps.min()) < 0:
        raise ValueError(f"num_steps must hold {len(x)} counts of at least 0, got {num_steps.tolist()}")
    state = x.detach().clone()
    last_energy, drift_sum = x.new_zeros(len(x)), x.new_zeros(len(x))
    for step in range(int(num_steps.max())):
        active = (num_steps > step).nonzero().squeeze(1)
        moved, info = step_on(state[active], randn_like=randn_like)
        state = state.index_copy(0, active, moved)
        last_energy = last_energy.index_copy(0, active, info.energy.to(last_energy.dtype))
        drift_sum = drift_sum.index_add(0, active, info.drift_norm)
        if callback is not None:
            callback(step, state, LangevinInfo(last_energy, info.drift_norm))
    return state, LangevinInfo(last_energy, drift_sum / num_steps.clamp(min=1))
