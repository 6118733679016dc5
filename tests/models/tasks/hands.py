"""Rollouts with the hand's numbers and known laws, where no simulator is wanted."""

from pathlib import Path

import torch

from models.data_trajectories import Rollouts, write_rollouts
from models.hand_simulation import ACTUATORS, JOINTS


def independent_rollouts(count: int, frames: int, seed: int) -> Rollouts:
    """States and actions N(0, I), each frame independent of the others: the past says nothing of the future."""
    generator = torch.Generator().manual_seed(seed)
    return Rollouts(*(torch.randn(count, frames, size, generator=generator) for size in (JOINTS, ACTUATORS)))


def walks(count: int, frames: int, seed: int) -> Rollouts:
    """x_0 ~ N(0, I), then steps N(0, I) that nothing tells of: h steps on, a state is N(x, h I) given the past."""
    steps = independent_rollouts(count, frames, seed)
    return Rollouts(steps.states.cumsum(1), steps.actions)


def write_splits(folder: Path, train: Rollouts, test: Rollouts) -> Path:
    for split, rollouts in (("train", train), ("test", test)):
        write_rollouts(folder / split, rollouts, {"law": "known"})
    return folder
