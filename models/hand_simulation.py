"""The Shadow hand under random smooth actions: MuJoCo's simulation, by way of gymnasium-robotics.

The trajectories of Implicit Generation and Generalization in EBMs (IGEBM, arXiv 1903.08689) are of such a hand; its
policies, lengths and counts are not published with its code, so these are our own.
"""

import contextlib
import io
import warnings
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from models.config import Frozen
from models.errors import DataError
from models.streams import Stream

Frames = npt.NDArray[np.float32]
JOINTS, ACTUATORS = 24, 20
SIMULATOR = ("mujoco", "gymnasium", "gymnasium-robotics")


class HandMotion(Frozen):
    """What moves the hand: targets of its 20 position actuators that wander around the middle of their ranges.

    a <- smoothness * a + (1 - smoothness^2)^(1/2) * spread * z,  z ~ N(0, I), clipped to [-1, 1], every 0.04 s.

    Args:
        frames: that are kept of a rollout.
        settle: that pass before them, while the hand leaves the pose that all rollouts begin in.
    """

    environment: str = "HandReach-v3"
    frames: int = Field(default=120, ge=1)
    settle: int = Field(default=30, ge=0)
    smoothness: float = Field(default=0.9, ge=0, lt=1)
    spread: float = Field(default=0.5, gt=0)
    seed: int = 0


class Rollout(NamedTuple):
    """The angles [F, 24] of the joints, in radians, and the action [F, 20] that led to each frame."""

    states: Frames
    actions: Frames


class HandSimulator:
    """One simulated hand, for as many rollouts as are asked of it; it draws nothing and needs no display.

    Raises:
        DataError: the simulator is not installed.
    """

    def __init__(self, motion: HandMotion) -> None:
        self._motion = motion
        self._environment, self._mujoco = _open(motion.environment)

    def rollout(self, split: str, number: int) -> Rollout:
        """A function of the motion, the split's name and the number alone."""
        motion = self._motion
        model, data = self._environment.model, self._environment.data
        # A reset of the environment leaves the solver's warm start, and with it a trace of the rollout before.
        self._mujoco.mj_resetData(model, data)
        self._environment.reset(seed=motion.seed)
        actions = wandering_actions(motion, Stream((motion.seed, "hand", split, number)))
        states = np.empty((len(actions), JOINTS), dtype=np.float32)
        for frame, action in enumerate(actions):
            self._environment.step(action)
            states[frame] = data.qpos[:JOINTS]
        return Rollout(states[motion.settle :], actions[motion.settle :])


def wandering_actions(motion: HandMotion, stream: Stream) -> Frames:
    """[settle + frames, 20] in [-1, 1], from the first on as they are at any later time."""
    steps = stream.normal((motion.settle + motion.frames, ACTUATORS)).numpy()
    fresh = (1 - motion.smoothness**2) ** 0.5
    for frame in range(1, len(steps)):
        steps[frame] = motion.smoothness * steps[frame - 1] + fresh * steps[frame]
    actions: Frames = np.clip(motion.spread * steps, -1, 1)
    return actions


def simulator_versions() -> dict[str, str]:
    """Of the packages that a rollout depends on."""
    return {name: version(name) for name in SIMULATOR}


def _open(environment: str) -> tuple[Any, Any]:
    # Imported here: only this needs the simulator. It warns of environments that nobody asked for.
    silenced = warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO())
    try:
        with silenced[0], silenced[1]:
            warnings.simplefilter("ignore")
            import gymnasium
            import gymnasium_robotics
            import mujoco

            gymnasium.register_envs(gymnasium_robotics)
            opened = gymnasium.make(environment).unwrapped
    except ImportError as error:
        raise DataError(f"{environment}: {error.name} is not installed; the extra `trajectories` brings it") from error
    return opened, mujoco
