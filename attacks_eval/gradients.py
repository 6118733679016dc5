"""How an attacker differentiates through a Langevin chain; the mode is always named, never a side effect.

| mode          | backward pass of purify                                                                          |
|---------------|--------------------------------------------------------------------------------------------------|
| `bpda`        | the identity (Athalye et al. 2018)                                                               |
| `full`        | exact: v <- v - c H(x_k) v back along the stored states, c = step_size^2 / 2T, H the Hessian of U |
| `smooth`      | the same recursion with the Hessian of a smooth-activation twin of the same weights               |
| `truncated:k` | `full` through the last k steps, the identity before them                                         |
| `smooth:k`    | `smooth` through the last k steps, the identity before them                                       |
| `smooth/s`    | `smooth` with one Hessian for every s steps (v <- v - s c H v): about s times cheaper             |

A piecewise-linear energy (ReLU, leaky ReLU) has H = 0 almost everywhere, so `full` is `bpda` exactly and says nothing
about the purifier's real response; `smooth` does. A stride s is sound while s c H has no eigenvalue above 2 and the
states move little; `Evaluator` takes one only after comparing it with stride 1 on the defence at hand, at the chain
length of its preset.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from pydantic import Field, model_serializer, model_validator
from torch import Tensor

from attacks_eval.errors import GradientError, QuestionError
from models.config import Frozen
from models.frozen.light_hessian import FrozenLightHessian
from models.gradients import Energy, gradient_of
from models.langevin import LangevinConfig, langevin_transition
from models.networks.energy import LightEnergy, SmoothLeakyReLU
from models.precision import DTYPES, Precision, autocast
from models.streams import ChainNoise

Kind = Literal["bpda", "full", "smooth"]
HessianProduct = Callable[[Tensor, Tensor], Tensor]
"""(x, v), both [N, ...] -> H(x) v, without a graph."""


class GradMode(Frozen):
    """A gradient mode; read from and written as the names of this module's table."""

    kind: Kind
    last: int | None = Field(default=None, ge=1)
    stride: int = Field(default=1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return _read(value) if isinstance(value, str) else value

    @model_serializer
    def _name(self) -> str:
        return str(self)

    def __str__(self) -> str:
        kind = "truncated" if self.kind == "full" and self.last else self.kind
        return kind + (f":{self.last}" if self.last else "") + (f"/{self.stride}" if self.stride > 1 else "")

    def backward_steps(self, num_steps: int) -> int:
        """Hessian products that one backward pass along a chain takes."""
        return 0 if self.kind == "bpda" else math.ceil(min(num_steps, self.last or num_steps) / self.stride)


_NAME = re.compile(r"(?P<kind>bpda|full|truncated(?=:)|smooth)(?::(?P<last>[1-9]\d*))?(?:/(?P<stride>[1-9]\d*))?")


def _read(name: str) -> dict[str, object]:
    """A mode by its name in the table; raises QuestionError for anything else."""
    match = _NAME.fullmatch(name)
    parts = match.groupdict() if match else {}
    misplaced = parts.get("last") and parts["kind"] in ("bpda", "full")
    misplaced = misplaced or (parts.get("stride") and parts["kind"] != "smooth")
    if not match or misplaced:
        raise QuestionError(
            f"unknown gradient mode {name!r}; known: bpda, full, truncated:k, smooth, smooth:k, smooth/s (k, s >= 1)"
        )
    kind = "full" if parts["kind"] == "truncated" else parts["kind"]
    return {"kind": kind, "last": parts["last"] and int(parts["last"]), "stride": int(parts["stride"] or 1)}


def stand_in(mode: GradMode, exact: GradMode) -> GradMode:
    """What `mode` means where `exact` stands for `full`: `truncated:k` of a blind energy is `smooth:k`."""
    return exact.model_copy(update={"last": mode.last}) if mode.kind == "full" else mode


BPDA, FULL, SMOOTH = GradMode(kind="bpda"), GradMode(kind="full"), GradMode(kind="smooth")


def pull_back_exactly(
    energy: Energy, states: Sequence[Tensor], noise: ChainNoise, config: LangevinConfig, last: int | None, v: Tensor
) -> Tensor:
    """v [N, ...] at the chain's end pulled back to its start through the sampler's own steps.

    Each step is computed again from its stored state, and must give the next stored state bit for bit: a backward pass
    along another trajectory than the forward one is a wrong gradient.

    Args:
        states: x_0 .. x_K, each [N, ...].
        last: how many steps count; the identity stands for the earlier ones.

    Raises:
        GradientError: a recomputed state differs from the stored one.
    """
    forward = gradient_of(energy, config.precision)
    for k in _steps(states, last):
        rows = _moved(states, k)
        settings = (config.step_size, config.drift_rate, partial(noise.at, k))
        replayed = langevin_transition(forward, states[k], *settings)[0][rows]
        if not torch.equal(replayed, states[k + 1][rows]):
            worst = float((replayed - states[k + 1][rows]).abs().max())
            raise GradientError(f"Langevin step {k} was replayed to another state than stored, {worst:.3g} off")
        x, gradient = gradient_with_graph(energy, states[k][rows], config.precision)
        v = v.index_add(0, rows, hessian_product(x, gradient, v[rows]), alpha=-config.drift_rate)
    return v


def pull_back_smoothly(
    twin: Energy, states: Sequence[Tensor], config: LangevinConfig, mode: GradMode, v: Tensor
) -> Tensor:
    """The same recursion along the same stored states, with the Hessian of a smooth twin of the energy.

    With a stride, the state in the middle of each group of steps speaks for the group.
    """
    steps, product = _steps(states, mode.last), hessian_product_of(twin, config.precision)
    for start in range(0, len(steps), mode.stride):
        group = steps[start : start + mode.stride]
        taken = torch.stack([_moves(states, k) for k in group]).sum(0).to(v)
        rows = taken.nonzero().squeeze(1)
        pulled = product(states[group[len(group) // 2]][rows], v[rows])
        v = v.index_add(0, rows, taken[rows].view(-1, *(1,) * (v.dim() - 1)) * pulled, alpha=-config.drift_rate)
    return v


def hessian_product_of(energy: Energy, precision: Precision) -> HessianProduct:
    """H(x) v of an energy whose weights stand still: written out for a smooth light network, or by autograd."""
    if isinstance(energy, LightEnergy) and isinstance(energy.layers[1], SmoothLeakyReLU):
        return FrozenLightHessian(energy, DTYPES[precision])

    def by_autograd(x: Tensor, v: Tensor) -> Tensor:
        return hessian_product(*gradient_with_graph(energy, x, precision), v)

    return by_autograd


@torch.no_grad()
def hessian_vanishes(energy: Energy, x: Tensor, precision: Precision = "float32") -> bool:
    """Whether H(x) v = 0 exactly for a random v at every image of x [N, ...], as for a piecewise-linear energy."""
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    x, gradient = gradient_with_graph(energy, x, precision)
    return not bool(hessian_product(x, gradient, v).any())


def _steps(states: Sequence[Tensor], last: int | None) -> range:
    total = len(states) - 1
    return range(total - 1, total - 1 - min(total, last or total), -1)


def _moves(states: Sequence[Tensor], k: int) -> Tensor:
    """bool [N]: which chains step k moved; one that has settled stands still."""
    return (states[k + 1] != states[k]).flatten(1).any(1)


def _moved(states: Sequence[Tensor], k: int) -> Tensor:
    return _moves(states, k).nonzero().squeeze(1)


def gradient_with_graph(energy: Energy, state: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """The state as a leaf, and dU/dx still attached to it."""
    with torch.enable_grad():
        x = state.detach().requires_grad_(True)
        with autocast(x.device, precision):
            u = energy(x)
        (gradient,) = torch.autograd.grad(u.float().sum(), x, create_graph=True)
    return x, gradient


def hessian_product(x: Tensor, gradient: Tensor, v: Tensor) -> Tensor:
    """H(x) v, without a graph, of the leaf and the gradient that `gradient_with_graph` gave."""
    if not gradient.requires_grad:  # a linear energy
        return torch.zeros_like(v)
    (product,) = torch.autograd.grad(gradient, x, v, allow_unused=True, materialize_grads=True)
    return product
