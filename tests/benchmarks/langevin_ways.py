"""Ways to run the same chain on the same problem: as papers publish it, other software, and ours."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.gradients import energy_gradient, gradient_of
from models.langevin import LangevinConfig, run_langevin
from models.precision import DTYPES, Precision, autocast
from tests.benchmarks.langevin_cases import STEP_SIZE, TEMPERATURE, Case, Problem
from tests.benchmarks.onnx_gradient import OnnxGradient
from tests.benchmarks.torchebm_process import Torchebm

BASE = "eager float32"
OURS = "ours, bfloat16"
SAMPLER = LangevinConfig(num_steps=0, step_size=STEP_SIZE, temperature=TEMPERATURE)


@dataclass(frozen=True)
class Way:
    """What computes in `dtype`: `run` makes that many steps, `gradient` is its dU/dx at the problem's images."""

    dtype: torch.dtype
    run: Callable[[int], object]
    gradient: Tensor


def make_ways(case: Case, problem: Problem, torchebm: Torchebm | None) -> dict[str, Way]:
    """Every way, ready to run; `BASE` is what the others are compared with."""
    ways = {BASE: eager(problem, "float32"), "eager autocast": eager(problem, "bfloat16")}
    if torchebm is not None:
        ways["torchebm"] = Way(torch.float32, torchebm.run, torchebm.prepare(case, len(problem.x)))
    return ways | {
        "ONNX Runtime": onnx(problem),
        "ours, float32": ours(problem, "float32"),
        OURS: ours(problem, "bfloat16"),
    }


def eager(problem: Problem, precision: Precision) -> Way:
    """The published way: weights in float32, default memory layout, autograd anew at every step."""
    gradient = energy_gradient(problem.network, problem.x, precision)[1]
    return Way(DTYPES[precision], lambda steps: eager_loop(problem.network, problem.x, steps, precision), gradient)


def eager_loop(network: nn.Module, x: Tensor, steps: int, precision: Precision) -> Tensor:
    """Autograd through an attached loop variable, as published code has it."""
    x = x.clone().requires_grad_(True)
    for _ in range(steps):
        with autocast(x.device, precision):
            energy = network(x)
        (grad,) = torch.autograd.grad(energy.sum(), x)
        x.data -= SAMPLER.drift_rate * grad
        x.data += STEP_SIZE * torch.randn_like(x)
    return x.detach()


def onnx(problem: Problem) -> Way:
    """A loop around ONNX Runtime, with as many threads as PyTorch has."""
    gradient = OnnxGradient(problem.network, problem.x, torch.get_num_threads())

    def run(steps: int) -> None:
        x = problem.x.clone()
        for _ in range(steps):
            x.add_(gradient(x), alpha=-SAMPLER.drift_rate).add_(torch.randn_like(x), alpha=STEP_SIZE)

    return Way(torch.float32, run, gradient(problem.x))


def ours(problem: Problem, precision: Precision) -> Way:
    """`run_langevin`, freezing included, in the memory layout that bundles are loaded in."""
    network = copy.deepcopy(problem.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sampler = SAMPLER.model_copy(update={"precision": precision})

    def run(steps: int) -> None:
        run_langevin(network, problem.x, sampler.model_copy(update={"num_steps": steps}))

    return Way(DTYPES[precision], run, gradient_of(network, precision)(problem.x)[1])
