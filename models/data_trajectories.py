"""Trajectories of the Shadow hand, simulated once into the cache, and the windows of them that an energy learns.

$LIMPID_CACHE/shadow_hand/SPLIT-DIGEST/
  states.npy    float32 [R, F, 24]: the joints' angles in radians
  actions.npy   float32 [R, F, 20]: what led to each frame, in [-1, 1]
  set.json      how they were made, and the SHA-256 of both; written last

The digest is of how they are made. A simulation's folder ends in .partial and holds how far it came in progress.json:
rollouts do not depend on each other, so that it goes on where it was interrupted.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock
from pydantic import Field
from torch import Tensor

from models.config import Frozen
from models.console import progress_bar
from models.data_batches import ImageDataset
from models.data_sources import cache_folder
from models.errors import DataError
from models.files import replace_file
from models.hand_simulation import ACTUATORS, JOINTS, HandMotion, HandSimulator, simulator_versions
from models.pixels import to_uint8
from models.trajectory_windows import WindowCode

NAME = "shadow_hand"
WINDOW = 3
"""Frames of a window."""
SHAPE = (1, WINDOW, JOINTS + ACTUATORS)
"""A window as an image: a row a frame, its states before its actions."""
ARRAYS = ("states.npy", "actions.npy")


class HandSet(Frozen):
    """How many rollouts there are of a motion; those of the two splits have nothing in common."""

    motion: HandMotion = HandMotion()
    train: int = Field(default=300, ge=1)
    test: int = Field(default=200, ge=1)

    def digest(self, split: str) -> str:
        """Of what makes a split's rollouts."""
        made = f"{self.motion.model_dump_json()} {split} {self.count(split)}"
        return hashlib.sha256(made.encode()).hexdigest()

    def count(self, split: str) -> int:
        """Rollouts of a split."""
        return self.train if split == "train" else self.test


@dataclass(frozen=True)
class Rollouts:
    """states float32 [R, F, 24] and the actions [R, F, 20] that led to them."""

    states: Tensor
    actions: Tensor


def hand_rollouts(
    split: Literal["train", "test"], folder: Path | None = None, wanted: HandSet | None = None
) -> Rollouts:
    """A split's rollouts: of `folder`/SPLIT where a folder is given, else of the cache, simulated when missing.

    Raises:
        DataError: files that are missing or altered, or a simulation without the simulator.
    """
    if folder is not None:
        return read_rollouts(folder / split)
    wanted = wanted or HandSet()
    cached = cache_folder() / NAME / f"{split}-{wanted.digest(split)[:16]}"
    cached.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cached.with_name(cached.name + ".lock")):
        if not cached.exists():
            _simulate(split, wanted, cached)
    return read_rollouts(cached)


def hand_windows(split: Literal["train", "test"], folder: Path | None = None) -> ImageDataset:
    """Every window of a split's rollouts, uint8 [N, 1, 3, 44], in the training rollouts' code; without classes."""
    train = hand_rollouts("train", folder)
    rollouts = train if split == "train" else hand_rollouts(split, folder)
    return encoded_windows(rollouts, WindowCode.fit(train.states, train.actions))


def encoded_windows(rollouts: Rollouts, code: WindowCode) -> ImageDataset:
    """Every window of the rollouts, as `hand_windows` gives them."""
    states, actions = (_windows(each) for each in (rollouts.states, rollouts.actions))
    images = to_uint8(code.encode(states, actions).flatten(0, 1)[:, None])
    return ImageDataset(NAME, images, torch.full((len(images),), -1), ())


def write_rollouts(folder: Path, rollouts: Rollouts, made_by: dict[str, object]) -> None:
    """Write a split's folder; `made_by` says how, for its set.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(ARRAYS, (rollouts.states, rollouts.actions), strict=True):
        np.save(folder / name, values.numpy())
    _seal(folder, made_by)


def read_rollouts(folder: Path) -> Rollouts:
    """The rollouts of a split's folder; raises DataError that names a missing, altered or misshapen file."""
    try:
        digests = json.loads((folder / "set.json").read_text())["sha256"]
        found = {name: _sha256(folder / name) for name in ARRAYS}
        arrays = [torch.from_numpy(np.load(folder / name)) for name in ARRAYS]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{NAME}: {folder} does not hold rollouts: {error}") from error
    for name, digest in found.items():
        if digest != digests.get(name):
            raise DataError(f"{NAME}: {folder / name} has SHA-256 {digest}, expected {digests.get(name)}")
    states, actions = arrays
    if states.dim() != 3 or states.shape[1] < WINDOW or (states.shape[2], actions.shape[2]) != (JOINTS, ACTUATORS):
        raise DataError(
            f"{NAME}: {folder} has states {list(states.shape)} and actions {list(actions.shape)}, "
            f"expected [R, F, {JOINTS}] and [R, F, {ACTUATORS}], F at least {WINDOW}"
        )
    return Rollouts(states, actions)


def _windows(values: Tensor) -> Tensor:
    """[R, F, D] -> [R, F - WINDOW + 1, WINDOW, D]."""
    return values.unfold(1, WINDOW, 1).movedim(-1, 2)


def _simulate(split: str, wanted: HandSet, folder: Path) -> None:
    simulator, partial = HandSimulator(wanted.motion), folder.with_name(folder.name + ".partial")
    progress_file, count = partial / "progress.json", wanted.count(split)
    if not progress_file.exists():
        partial.mkdir(exist_ok=True)
        for name, size in zip(ARRAYS, (JOINTS, ACTUATORS), strict=True):
            shape = (count, wanted.motion.frames, size)
            np.lib.format.open_memmap(partial / name, mode="w+", dtype=np.float32, shape=shape)
        replace_file(progress_file, b"0")
    done = int(progress_file.read_text())
    states, actions = (np.lib.format.open_memmap(partial / name, mode="r+") for name in ARRAYS)
    with progress_bar(f"{NAME} {split}: rollouts", count, done) as progress:
        for number in range(done, count):
            states[number], actions[number] = simulator.rollout(split, number)
            states.flush()
            actions.flush()
            replace_file(progress_file, str(number + 1).encode())
            progress.advance(progress.task_ids[0])
    _seal(partial, {"motion": wanted.motion.model_dump(), "split": split, "versions": simulator_versions()})
    progress_file.unlink()
    partial.rename(folder)


def _seal(folder: Path, made_by: dict[str, object]) -> None:
    described = {**made_by, "sha256": {name: _sha256(folder / name) for name in ARRAYS}}
    replace_file(folder / "set.json", json.dumps(described, indent=1).encode())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
