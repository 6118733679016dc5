"""The experiment on the hand's trajectories, small, where the past says nothing and the answer is known."""

import math
from pathlib import Path

import pytest
import torch

from models.langevin import LangevinConfig
from models.reproduce.igebm_trajectories import PICTURE, explain, mean_distance, remake
from models.reproduce.result import Finding
from models.tasks.trajectories import Scores
from models.tasks.trajectory_comparison import ENERGY, NETWORK, NOISY, Size, Try
from models.tasks.trajectory_models import Learning
from tests.models.tasks.hands import walks, write_splits

HORIZON = 2


@pytest.fixture(scope="module")
def size(tmp_path_factory: pytest.TempPathFactory) -> Size:
    folder = write_splits(tmp_path_factory.mktemp("hand"), walks(800, 5, 0), walks(800, 5, 1))
    sampler = LangevinConfig(num_steps=12, step_size=0.08, temperature=0.03)
    learning = Learning(data=folder, widths=(256,), updates=250, batch_size=32, sampler=sampler, bank_size=512)
    return Size(
        learning=learning,
        energies=(Try(rate=3e-3),),
        networks=(Try(rate=1e-6), Try(rate=1e-2)),
        chain_steps=80,
        seeds=1,
        horizon=HORIZON,
        stride=5,
        samples=2,
        sampled_starts=3,
    )


@pytest.fixture(scope="module")
def finding(size: Size, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finding]:
    folder = tmp_path_factory.mktemp("run")
    return folder, remake(folder, torch.device("cpu"), size)


def test_of_a_random_walk_regression_stands_still_and_chains_walk(finding: tuple[Path, Finding]) -> None:
    """From x_1 ~ N(0, 2 I) a walk comes to N(0, (2 + h) I) and its mean to N(0, 2 I): by Fréchet distance they are
    24 (sqrt(2 + h) - sqrt(2))^2 apart, in units of the states' variance 3."""
    folder, found = finding
    distance = {number.what.removeprefix("Fréchet distance, "): number.ours for number in found.numbers}
    apart = sum(24 * (math.sqrt(2 + step) - math.sqrt(2)) ** 2 / 3 for step in range(1, HORIZON + 1)) / HORIZON
    for setting in ("actions unknown", "actions known"):  # which tell nothing
        energy, regression, noisy = (distance[f"{setting}: {name}"] for name in (ENERGY, NETWORK, NOISY))
        assert regression == pytest.approx(apart, rel=0.35)  # of 400 starts, which are biased upwards
        assert noisy < energy < 0.6 * regression
        assert f"With {setting} the energy's distance, {energy:.2f}, is below the regression's" in found.why
        assert f"brings it to {noisy:.2f}, as near as the energy or nearer" in found.why
        assert found.details["chosen"][setting][NETWORK] == "0.01"
    assert found.details["diversity"][-1] == pytest.approx((HORIZON / 3) ** 0.5, rel=0.35)
    assert (folder / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_a_finished_experiment_is_found_again(finding: tuple[Path, Finding], size: Size) -> None:
    folder, found = finding
    kept = [*folder.glob("scores/*.json"), *folder.glob("*.safetensors"), *folder.glob("*/checkpoint.pt")]
    assert len(kept) == 2 * (2 + 1 + 3) + 4 + 1
    written = [path.stat().st_mtime_ns for path in kept]
    again = remake(folder, torch.device("cpu"), size)
    assert (again.numbers, again.cpu_hours) == (found.numbers, found.cpu_hours)
    assert [path.stat().st_mtime_ns for path in kept] == written


def test_what_is_said_follows_from_the_distances() -> None:
    def runs(*values: float) -> list[Scores]:
        return [Scores(states=(value, value + 1), motion=(0.0,), errors=(0.0,)) for value in values]

    assert mean_distance(runs(1.0, 2.0)) == (2.0, pytest.approx(0.5**0.5))
    assert mean_distance(runs(1.0)) == (1.5, None)
    said = explain({"a": {ENERGY: runs(1.0), NETWORK: runs(9.0), NOISY: runs(3.0)}}, (0.25, 0.75))
    assert "With a the energy's distance, 1.50, is below the regression's, 9.50; real trajectories" in said
    assert "to 3.50, not as near as the energy" in said
    said = explain({"a": {ENERGY: runs(1.0), NETWORK: runs(9.0), NOISY: runs(0.5)}}, (0.5,))
    assert "to 1.00, as near as the energy or nearer" in said
    said = explain({"a": {ENERGY: runs(2.0), NETWORK: runs(1.0), NOISY: runs(1.0)}}, (0.5,))
    assert "2.50, is not below the regression's, 1.50; real trajectories from other starts have 0.50" in said
    assert "mean of the possible futures" not in said
