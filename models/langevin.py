"""Langevin dynamics: one step and one loop, used by training, purification and evaluation alike.

On a CPU chains run apart: each core moves a few of them through all their steps, with operations that use one core.
PyTorch's own way, every operation split over all cores, meets at a barrier twenty times a step.

The chain targets exp(-U(x) / T). `step_size` is the standard deviation of the noise a step adds; the drift is
step_size^2 / (2 T) * grad U. Step and conventions follow EBM Life Cycle (arXiv 2205.12243).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from models.chain_threads import chain_threads, shares
from models.composed import EnergySum
from models.config import Frozen
from models.gradients import Energy, Gradient, gradient_of, rows_of
from models.noise import UNSEEDED, DivisibleNoise, Noise
from models.precision import Precision
from models.settling import EnergyWatch

BATCH_MULTIPLE = 16
"""Batches shrink, and others are padded, to multiples of this: convolution kernels treat a remainder differently, in
the last bits, and a chain must not depend on who is in its batch."""
PIXELS_APART = 32 * 32 * 32
"""Pixels of the chains that a core moves together: enough to fill its vectors, few enough to stay in its cache."""


class LangevinConfig(Frozen):
    """How a chain runs. `precision` is the energy network's; the chain itself stays in its own dtype.

    `settle` lets a chain stop before `num_steps`, when its energy has not fallen by so many standard errors
    (`models/settling.py`).

    Args:
        gradient_clamp: largest element of the gradient that a step follows, either way; None is no limit.
        box: every element of a state is put back into [-box, box] after each step; None lets chains go where they go.
    """

    num_steps: int = Field(ge=0)
    step_size: float = Field(gt=0)
    temperature: float = Field(gt=0)
    precision: Precision = "float32"
    settle: float | None = Field(default=None, gt=0)
    # Left out of what is written where there is none: results and runs from before still compare as equal.
    gradient_clamp: float | None = Field(default=None, gt=0, exclude_if=lambda value: value is None)
    box: float | None = Field(default=None, gt=0, exclude_if=lambda value: value is None)

    @property
    def drift_rate(self) -> float:
        """step_size^2 / (2 T), what multiplies grad U in a step."""
        return self.step_size**2 / (2.0 * self.temperature)


class LangevinInfo(NamedTuple):
    """What a human or a diagnostic needs from a step: U before it and the length of its drift, each [B]."""

    energy: Tensor
    drift_norm: Tensor


class ChainInfo(NamedTuple):
    """What is left of a run: each chain's last energy, mean drift length, and number of steps, each [B]."""

    energy: Tensor
    drift_norm: Tensor
    num_steps: Tensor


Callback = Callable[[int, Tensor, LangevinInfo], None]
"""Called after each step with its index (from 0), the new state [B, ...] and the step's info."""


def add_energies(terms: Sequence[tuple[Energy, float]], tau: float | None = None) -> EnergySum:
    """U(x) = sum_i f_i(x) / T_i + |x|^2 / (2 tau^2), to be sampled at temperature 1.

    Args:
        terms: energies with their own temperatures, for instance [(f, T), (prior, T_prior)].
        tau: standard deviation of the Gaussian term, in pixel units of [-1, 1]; None leaves it out.
    """
    return EnergySum(tuple(terms), tau)


def langevin_transition(
    gradient: Gradient,
    x: Tensor,
    step_size: float | Tensor,
    drift_rate: float | Tensor,
    randn_like: Noise = UNSEEDED,
    gradient_clamp: float | None = None,
    box: float | None = None,
) -> tuple[Tensor, LangevinInfo]:
    """x <- x - drift_rate * dU/dx + step_size * z,  z ~ N(0, I), then into the box; x is [B, ...].

    Settings may be tensors that broadcast to x; where both are 0 it stands still. The result carries no gradient:
    differentiating through a chain is a deliberate act, done elsewhere.
    """
    u, grad = gradient(x)
    x = x.detach()
    drift = drift_of(grad, drift_rate, gradient_clamp)
    info = LangevinInfo(u, drift.flatten(1).norm(dim=1))
    return boxed(x + drift + step_size * randn_like(x), box), info


def drift_of(gradient: Tensor, drift_rate: float | Tensor, gradient_clamp: float | None) -> Tensor:
    """What a step adds besides noise, from dU/dx [B, ...]."""
    return -drift_rate * (gradient if gradient_clamp is None else gradient.clamp(-gradient_clamp, gradient_clamp))


def boxed(x: Tensor, box: float | None) -> Tensor:
    """Each element of x at the nearest place in [-box, box]; None leaves x as it is."""
    return x if box is None else x.clamp(-box, box)


def run_langevin(
    energy: Energy,
    x: Tensor,
    config: LangevinConfig,
    num_steps: Tensor | None = None,
    randn_like: Noise = UNSEEDED,
    callback: Callback | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, ChainInfo]:
    """`config.num_steps` steps from x [B, ...], or fewer for chains that settle, when the configuration lets them.

    With divisible noise on a CPU, and without `callback` and `num_steps`, chains of images [B, C, H, W] run apart:
    `energy` is then called from several threads, each with some of the chains. What an energy holds for each chain
    follows its chain (`models.gradients.rows_of`).

    Args:
        num_steps: int64 [B], each chain's own number of steps instead of the common one. A chain that has run its
            steps, or settled, leaves the batch and stands still in what `callback` sees.
        mask: bool, of x's shape but for dimensions of 1: pixels where it is False stand still, to the bit, and the
            others follow the energy given them.
    """
    step_on = _Step(gradient_of(energy, config.precision), config, None if mask is None else _whole(mask, x))
    x = x.contiguous()
    if num_steps is not None:
        if num_steps.shape != (len(x),) or int(num_steps.min()) < 0:
            raise ValueError(f"num_steps must hold {len(x)} counts of at least 0, got {num_steps.tolist()}")
        return _run_as_needed(step_on, x, num_steps, config.settle, randn_like, callback)
    if x.device.type != "cpu" or x.dim() != 4 or len(x) == 0 or not isinstance(randn_like, DivisibleNoise):
        return _run(step_on, x, config, randn_like, callback)
    whole = [slice(0, len(x))]
    threads = chain_threads()
    parts = whole if callback is not None else _apart(len(x), math.prod(x.shape[2:]), threads.count)
    noises = randn_like.divide(parts)
    if parts == whole:
        return _run(step_on, x, config, noises[0], callback)
    runs = [
        partial(_run, step_on.rows(part), x[part], config, noise) for part, noise in zip(parts, noises, strict=True)
    ]
    states, infos = zip(*threads.map(lambda run: run(), runs), strict=True)
    return torch.cat(states), ChainInfo(*map(torch.cat, zip(*infos, strict=True)))


@dataclass(frozen=True)
class _Step:
    """`langevin_transition` of one energy and some chains; `mask` is bool [B, ...], of their shape."""

    gradient: Gradient
    config: LangevinConfig
    mask: Tensor | None = None

    def __call__(self, x: Tensor, randn_like: Noise) -> tuple[Tensor, LangevinInfo]:
        config = self.config
        moving = 1.0 if self.mask is None else self.mask.to(x.dtype)
        step_size, drift_rate = config.step_size * moving, config.drift_rate * moving
        limits = {"gradient_clamp": config.gradient_clamp, "box": config.box}
        moved, info = langevin_transition(self.gradient, x, step_size, drift_rate, randn_like, **limits)
        # A box would move what stands still outside of it.
        return moved if self.mask is None else torch.where(self.mask, moved, x), info

    def rows(self, index: slice | Tensor) -> "_Step":
        """The step of these chains alone."""
        mask = None if self.mask is None else self.mask[index]
        return replace(self, gradient=rows_of(self.gradient, index), mask=mask)


def _whole(mask: Tensor, x: Tensor) -> Tensor:
    """The mask of each chain of x; raises ValueError when it does not fit them."""
    fits = mask.dim() == x.dim() and all(m in (1, n) for m, n in zip(mask.shape, x.shape, strict=True))
    if mask.dtype != torch.bool or not fits:
        found = f"{mask.dtype} {list(mask.shape)}"
        raise ValueError(f"mask must be torch.bool, of shape {list(x.shape)} or 1 in its place, got {found}")
    return mask.expand_as(x)


def _apart(chains: int, pixels: int, cores: int) -> list[slice]:
    """Equal parts, as many for each core; all together where a core would have no chain."""
    if chains < cores:
        return [slice(0, chains)]
    most = max(1, PIXELS_APART // pixels)
    return shares(chains, cores * math.ceil(chains / (cores * most)))


def _run(
    step_on: _Step, x: Tensor, config: LangevinConfig, randn_like: Noise, callback: Callback | None = None
) -> tuple[Tensor, ChainInfo]:
    counts = torch.full((len(x),), config.num_steps, device=x.device)
    if config.settle is not None:
        return _run_as_needed(step_on, x, counts, config.settle, randn_like, callback)
    x = x.detach().clone()  # a thread's own, whatever mode its caller is in
    last_energy, drift_sum = x.new_zeros(len(x)), x.new_zeros(len(x))
    for step in range(config.num_steps):
        x, info = step_on(x, randn_like)
        last_energy, drift_sum = info.energy, drift_sum + info.drift_norm
        if callback is not None:
            callback(step, x, info)
    return x, ChainInfo(last_energy, drift_sum / max(config.num_steps, 1), counts)


def _run_as_needed(
    step_on: _Step, x: Tensor, num_steps: Tensor, settle: float | None, randn_like: Noise, callback: Callback | None
) -> tuple[Tensor, ChainInfo]:
    """Noise is drawn for all chains at every step, so that one's noise does not depend on who has left."""
    state, left = x.detach().clone(), num_steps.clone()
    last_energy, drift_sum = x.new_zeros(len(x)), x.new_zeros(len(x))
    watch = None if settle is None else EnergyWatch(settle)
    leaving = {0, *num_steps.tolist()}  # when somebody does, so that a GPU is not asked at every step
    for step in range(max(leaving)):
        if step in leaving:
            moving = left > step
            rows = _rows(moving)
            kept, step_of_rows = moving[rows], step_on.rows(rows)
        if not len(rows):
            break
        noise = randn_like(state)
        moved, info = step_of_rows(state[rows], _drawn(noise[rows]))
        going, info = rows[kept], LangevinInfo(info.energy[kept], info.drift_norm[kept])
        state = state.index_copy(0, going, moved[kept])
        last_energy = last_energy.index_copy(0, going, info.energy.to(last_energy.dtype))
        drift_sum = drift_sum.index_add(0, going, info.drift_norm)
        if callback is not None:
            callback(step, state, LangevinInfo(last_energy, info.drift_norm))
        if watch is not None and (settled := watch.add(last_energy)) is not None:
            left = torch.where(settled, left.clamp(max=step + 1), left)
            leaving.add(step + 1)
    return state, ChainInfo(last_energy, drift_sum / left.clamp(min=1), left)


def _drawn(noise: Tensor) -> Noise:
    return lambda _: noise


def _rows(moving: Tensor) -> Tensor:
    """The chains that move, and as many others as make their number a multiple, or the whole batch."""
    count = int(moving.sum())
    padded = min(len(moving), math.ceil(count / BATCH_MULTIPLE) * BATCH_MULTIPLE)
    return (~moving).to(torch.uint8).argsort(stable=True)[:padded]
