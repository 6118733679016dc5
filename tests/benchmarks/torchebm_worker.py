"""torchebm's Langevin sampler in a process of its own, driven by `torchebm_process` over pipes.

It runs in the venv that `make bench` makes for what Limpid is compared with. Requests and answers are pickles: a case
and a batch to prepare, answered by the gradient of the energy there as a NumPy array; then numbers of steps to run,
each answered by None when they are done.
"""

import pickle
import sys
from math import sqrt
from typing import Any

import torch
import torchebm
from torch import Tensor
from torchebm.core import BaseModel
from torchebm.samplers import LangevinDynamics

from models.langevin import LangevinConfig
from tests.benchmarks.langevin_cases import STEP_SIZE, TEMPERATURE, Case, Problem, make_problem


class Energy(BaseModel):  # type: ignore[misc]
    """A network as torchebm takes one."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.network = problem.network

    def forward(self, x: Tensor) -> Tensor:
        energy: Tensor = self.network(x)
        return energy


def sampler(energy: Energy) -> Any:
    """torchebm steps x - h dU/dx + sqrt(2 h) noise_scale z: the chain that ours is, in its terms."""
    drift_rate = LangevinConfig(num_steps=0, step_size=STEP_SIZE, temperature=TEMPERATURE).drift_rate
    return LangevinDynamics(energy, step_size=drift_rate, noise_scale=STEP_SIZE / sqrt(2 * drift_rate))


def main() -> None:
    """Answer requests until the pipe is closed; the first answer, unasked, is torchebm's version."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    answer: Any = torchebm.__version__
    chains, x = None, torch.empty(0)
    while True:
        pickle.dump(answer, answers)
        answers.flush()
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        if isinstance(request, int):
            assert chains is not None
            chains.sample(x=x, n_steps=request)
            answer = None
        else:
            problem = make_problem(Case(**request[0]), request[1])
            energy, x = Energy(problem), problem.x
            chains, answer = sampler(energy), energy.gradient(x).numpy()


if __name__ == "__main__":
    main()
