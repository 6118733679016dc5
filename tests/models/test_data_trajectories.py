"""Windows of trajectories: what they hold, files that are not what they were, and a simulation that goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.data import DataSection, load_dataset, open_training_set
from models.data_batches import BatchPlan
from models.data_trajectories import NAME, SHAPE, HandSet, hand_rollouts, read_rollouts
from models.errors import DataError
from models.hand_simulation import HandMotion, wandering_actions
from models.pixels import from_uint8
from models.streams import Stream
from models.trajectory_windows import LIMIT, WindowCode
from tests.models.tasks.hands import independent_rollouts, write_splits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_splits(tmp_path_factory.mktemp("hand"), independent_rollouts(5, 30, 0), independent_rollouts(2, 30, 1))


def test_rows_are_standardised_and_lead_back_to_the_states() -> None:
    rollouts = independent_rollouts(40, 50, 2)
    scales = torch.logspace(-2, 2, 24)
    states = rollouts.states * scales + 7
    code = WindowCode.fit(states, rollouts.actions)
    rows = code.encode(states, rollouts.actions)
    torch.testing.assert_close(rows[:, 1:].flatten(0, 1).std(0), torch.full((44,), 1 / LIMIT), rtol=0.05, atol=0)
    torch.testing.assert_close(rows[:, 0, :24].std(0), torch.full((24,), 1 / LIMIT), rtol=0.5, atol=0)
    again = states[:, :1] + code.moves(rows).cumsum(1)
    assert ((again - states[:, 1:]).abs() / scales).max() < 1e-2


def test_every_window_of_a_rollout_is_there(folder: Path) -> None:
    train, windows = read_rollouts(folder / "train"), load_dataset(NAME, "train", folder)
    assert (windows.images.shape, windows.class_names) == ((5 * 28, *SHAPE), ())
    code = WindowCode.fit(train.states, train.actions)
    wanted = code.encode(train.states[3, 10:13], train.actions[3, 10:13])
    error = (from_uint8(windows.images[3 * 28 + 10, 0]) - wanted.clamp(-1, 1)).abs().max()
    assert error <= 1.001 / 255
    test = load_dataset(NAME, "test", folder)  # in the training rollouts' code
    held = read_rollouts(folder / "test")
    wanted = code.encode(held.states[0, :3], held.actions[0, :3])
    assert (from_uint8(test.images[0, 0]) - wanted.clamp(-1, 1)).abs().max() <= 1.001 / 255


def test_a_recipe_may_name_the_windows(folder: Path) -> None:
    section = DataSection(name=NAME, folder=folder)
    data = open_training_set(section)
    batch = next(data.batches(BatchPlan(7, seed=0)))
    assert section.shape == data.shape == tuple(batch.shape[1:]) == SHAPE
    assert batch.dtype == torch.uint8


def test_altered_and_misshapen_rollouts_are_named(tmp_path: Path) -> None:
    rollouts = independent_rollouts(2, 5, 0)
    write_splits(tmp_path, rollouts, rollouts)
    np.save(tmp_path / "train" / "states.npy", rollouts.states.numpy() + 1)
    with pytest.raises(DataError, match=r"train/states\.npy has SHA-256 .* expected"):
        read_rollouts(tmp_path / "train")
    short = rollouts.__class__(rollouts.states[:, :2], rollouts.actions[:, :2])
    write_splits(tmp_path, short, short)
    with pytest.raises(DataError, match=r"has states \[2, 2, 24\] .* F at least 3"):
        read_rollouts(tmp_path / "train")
    with pytest.raises(DataError, match="does not hold rollouts: .*set.json"):
        read_rollouts(tmp_path / "validation")


def test_targets_wander_as_they_are_said_to() -> None:
    motion = HandMotion(smoothness=0.8, spread=0.2, settle=0, frames=20_000)
    actions = torch.from_numpy(wandering_actions(motion, Stream((0, "a"))))
    assert actions.square().mean().item() == pytest.approx(0.04, rel=0.02)
    assert (actions[1:] * actions[:-1]).mean().item() / 0.04 == pytest.approx(0.8, rel=0.02)
    large = wandering_actions(HandMotion(spread=5.0), Stream((0, "a")))
    assert abs(large).max() == 1.0


def test_a_simulation_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("mujoco", "gymnasium", "gymnasium_robotics"):
        pytest.importorskip(package, reason="the extra `trajectories` brings the simulator")
    monkeypatch.setenv("LIMPID_CACHE", str(tmp_path))
    wanted = HandSet(motion=HandMotion(frames=6, settle=3), train=3, test=2)
    whole, test = hand_rollouts("train", None, wanted), hand_rollouts("test", None, wanted)
    assert whole.states.shape == (3, 6, 24)
    assert whole.states.diff(dim=1).abs().mean() > 1e-3
    assert (whole.states[:2] - test.states).abs().mean() > 1e-3
    (folder,) = (each for each in (tmp_path / NAME).glob("train-*") if each.is_dir())
    assert json.loads((folder / "set.json").read_text())["versions"].keys() == {
        *("mujoco", "gymnasium", "gymnasium-robotics")
    }
    partial = folder.rename(folder.with_name(folder.name + ".partial"))
    for name in ("states.npy", "actions.npy"):
        values = np.load(partial / name)
        values[1:] = 0
        np.save(partial / name, values)
    (partial / "progress.json").write_text("1")
    resumed = hand_rollouts("train", None, wanted)
    assert torch.equal(resumed.states, whole.states)
    assert torch.equal(resumed.actions, whole.actions)
