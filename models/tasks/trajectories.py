"""Prediction by an energy over windows of states and actions: what is known stands still, the next state follows it.

After Implicit Generation and Generalization in EBMs (IGEBM, arXiv 1903.08689). A prediction of many steps is rolled
forward a state at a time, each from the ones predicted before. Beside it stands a network that predicts the next state
at once: a chain draws one of the futures, regression gives their mean.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.config import Frozen
from models.data_trajectories import Rollouts
from models.evaluation.fidelity import Gaussian, frechet_distance
from models.gradients import Energy
from models.langevin import LangevinConfig, run_langevin
from models.noise import SeededNoise
from models.trajectory_windows import WindowCode

Advance = Callable[[Tensor], Tensor]
"""Fills in what is not known of windows [B, 1, T, S + A], of which the unknown entries hold 0."""


class Future(NamedTuple):
    """Trajectories from some starts on: states [N, T - 1, S] before, then [N, H, S]; actions [N, T - 1 + H, A]."""

    past: Tensor
    states: Tensor
    actions: Tensor


def futures(rollouts: Rollouts, past: int, horizon: int, stride: int) -> Future:
    """Every start of the rollouts that is a multiple of `stride`, rollout by rollout."""
    length = past + horizon
    states = rollouts.states.unfold(1, length, stride).movedim(-1, 2).flatten(0, 1)
    actions = rollouts.actions.unfold(1, length, stride).movedim(-1, 2).flatten(0, 1)
    return Future(states[:, :past], states[:, past:], actions)


def known_entries(frames: int, state_size: int, size: int, actions: bool) -> Tensor:
    """bool [1, 1, T, S + A]: all states but the last, and the actions where they are known."""
    known = torch.zeros(1, 1, frames, size, dtype=torch.bool)
    known[..., :-1, :state_size] = True
    known[..., state_size:] = actions
    return known


def roll_forward(
    advance: Advance, code: WindowCode, start: Future, known: Tensor, stepped: Callable[[], object] = lambda: None
) -> Tensor:
    """[N, H, S]: the states after `start.past`, each by `advance` from those before it.

    Args:
        start: of its future states only the number counts, and of its actions only what is `known`.
        stepped: called after each state, for a progress bar.
    """
    states, frames = start.past, known.shape[2]
    for step in range(start.states.shape[1]):
        recent = states[:, -(frames - 1) :]
        rows = code.encode(torch.cat([recent, recent[:, -1:]], 1), start.actions[:, step : step + frames])
        window = torch.where(known, rows[:, None], 0.0)
        move = code.moves(advance(window)[:, 0])[:, -1:]
        states = torch.cat([states, states[:, -1:] + move], 1)
        stepped()
    return states[:, start.past.shape[1] :]


def by_chains(energy: Energy, sampler: LangevinConfig, known: Tensor, generator: torch.Generator) -> Advance:
    """One draw of the unknown entries by Langevin dynamics from uniform noise, where training starts its chains."""
    noise = SeededNoise(generator)

    def advance(windows: Tensor) -> Tensor:
        uniform = torch.rand(windows.shape, generator=generator, device=windows.device) * 2 - 1
        starts = torch.where(known, windows, uniform)
        return run_langevin(energy, starts, sampler, randn_like=noise, mask=~known)[0]

    return advance


def by_network(
    network: nn.Module, known: Tensor, residual: Tensor | None = None, generator: torch.Generator | None = None
) -> Advance:
    """The next state's expected value by a `StepNetwork`.

    Args:
        residual: [S, S], the R of the covariance R^T R of what the network missed: Gaussian noise of it is added, drawn
            from `generator`.
    """
    frames, inputs = known.shape[2], known[0, 0]

    def advance(windows: Tensor) -> Tensor:
        with torch.no_grad():
            last: Tensor = network(windows[:, 0, inputs])
        if residual is not None:
            last = last + torch.randn(last.shape, generator=generator, device=last.device) @ residual
        filled = windows.clone()
        filled[:, 0, frames - 1, : last.shape[1]] = last
        return filled

    return advance


class Scores(Frozen):
    """Predicted trajectories against real ones at each step of the future; states are in standard deviations.

    Args:
        states: Fréchet distance between the states.
        motion: Fréchet distance between states and what they moved by, each move in standard deviations: standing still
            keeps the states of a process that goes on and on the same, and not its motion.
        errors: mean squared error over starts and the numbers of a state.
    """

    states: tuple[float, ...]
    motion: tuple[float, ...]
    errors: tuple[float, ...]


def score(predicted: Tensor, start: Future, code: WindowCode) -> Scores:
    """Of predicted states [N, H, S], one future for each of the starts."""
    ours, real = code.standardised(predicted), code.standardised(start.states)
    moved = [
        torch.cat([start.past[:, -1:], states], 1).diff(dim=1) / code.move[1].to(real)
        for states in (predicted, start.states)
    ]
    return Scores(
        states=distances(ours, real),
        motion=distances(torch.cat([ours, moved[0]], -1), torch.cat([real, moved[1]], -1)),
        errors=tuple((ours - real).square().mean((0, 2)).tolist()),
    )


def distances(predicted: Tensor, real: Tensor) -> tuple[float, ...]:
    """The Fréchet distance between two sets [N, H, D] at each of the H steps."""
    pairs = zip(predicted.unbind(1), real.unbind(1), strict=True)
    return tuple(frechet_distance(Gaussian.fit(ours), Gaussian.fit(theirs)) for ours, theirs in pairs)


def diversity(samples: Tensor, code: WindowCode) -> tuple[float, ...]:
    """At each step, how far the samples [K, N, H, S] of a start lie apart: their standard deviation in those of the
    states, root mean square over starts and the numbers of a state."""
    return tuple(code.standardised(samples).var(0).mean((0, 2)).sqrt().tolist())
