"""The loops: what they minimise, what they refuse, and that a killed run resumes to the same losses."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.errors import CheckpointError, ConfigError, FolderInUse, TrainingDiverged
from models.export import summarise_log
from models.files import sole_writer
from models.langevin import LangevinConfig
from models.training.average import WeightAverage
from models.training.classifier_loop import ClassifierTraining, augment, one_cycle, random_crop
from models.training.diagnostics import correlation, image_grid, plot_diagnostics
from models.training.program import train_recipe
from models.training.recipe import load_recipe
from models.training.run import TrainingRun, load_checkpoint, read_metrics, save_checkpoint
from models.training.schedules import value_at
from models.training.warm_start import WarmStart, warm_start_loss
from tests.conftest import ZOO
from tests.models.pictures import write_classes

ENERGY = [
    "network.arguments.width=8",
    "sampler.num_steps=5",
    "warm_start.updates=60",
    "warm_start.log_every=1",
    "warm_start.checkpoint_every=10",
    "mid_run.updates=100",
    "mid_run.bank_size=128",
    "mid_run.checkpoint_every=10",
    "mid_run.log_every=1",
]
SHORT = [
    "network.arguments.width=8",
    "sampler.num_steps=3",
    "initialiser.network={ name = 'small_generator' }",
    "short_run.updates=60",
    "short_run.bank_size=128",
    "short_run.checkpoint_every=10",
    "short_run.log_every=1",
]
LONG = [
    "network.arguments.width=8",
    "sampler.num_steps=3",
    "initialiser={ kind = 'data' }",
    f"prior={{ tau = 0.5, energy = '{ZOO}/digits-midrun/energy.safetensors', temperature = 1e-3, network = {{ "
    "name = 'light', arguments = { channels = 1, image_size = 8, width = 32, activation = 'leaky', slope = 0.05 } } }",
    "long_run.updates=60",
    "long_run.bank_size=100",
    "long_run.burn_in_size=80",
    "long_run.burn_in_updates=10",
    "long_run.num_steps=[[0, 3], [40, 4]]",
    "long_run.checkpoint_every=10",
    "long_run.log_every=1",
]
STREAMED = [
    *ENERGY,
    "warm_start.updates=20",
    "mid_run.updates=60",
    "data={ name = 'folder', side = 8, channels = 1, streaming = true }",
]
CLASSIFIER = ["training.epochs=6", "network.arguments.stem=8", "network.arguments.widths=[8,8]"]


class Quadratic(nn.Module):
    """f(x) = curvature / 2 |x - centre|^2."""

    def __init__(self, curvature: float, centre: Tensor) -> None:
        super().__init__()
        self.curvature, self.centre = nn.Parameter(torch.tensor(curvature)), centre

    def forward(self, x: Tensor) -> Tensor:
        return self.curvature / 2 * (x - self.centre).flatten(1).square().sum(1)


def test_warm_start_loss_is_zero_for_the_true_score_and_one_for_a_flat_energy() -> None:
    """For one image c and one noise level s, the true energy is T / s^2 * |x - c|^2 / 2."""
    centre = torch.rand(1, 1, 4, 4)
    sampler = LangevinConfig(num_steps=1, step_size=0.01, temperature=0.01)
    config = WarmStart(updates=1, min_noise=0.2, max_noise=0.2000001)
    images = centre.expand(64, -1, -1, -1)
    generator = torch.Generator().manual_seed(0)
    exact = warm_start_loss(Quadratic(0.01 / 0.2**2, centre), images, sampler, config, generator)
    flat = warm_start_loss(Quadratic(0.0, centre), images, sampler, config, generator)
    assert exact.item() == pytest.approx(0.0, abs=1e-6)
    assert flat.item() == pytest.approx(1.0, abs=4 * np.sqrt(2 / (64 * 16)))


def test_weight_average_follows_its_formula_and_includes_buffers() -> None:
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, decay=0.5)
    with torch.no_grad():
        network.weight.fill_(2.0)
        network.running_mean.fill_(4.0)  # type: ignore[union-attr]
    average.update(network)  # decay min(0.5, 1 / 10)
    expected = 0.1 * 1.0 + 0.9 * 2.0
    assert average.network.weight.item() == pytest.approx(expected)
    assert average.network.running_mean.item() == pytest.approx(0.9 * 4.0)
    for _ in range(60):
        average.update(network)
    assert average.network.weight.item() == pytest.approx(2.0)


def test_schedules() -> None:
    rates = ((0, 1e-4), (100, 1e-5), (200, 1e-6))
    assert [value_at(rates, update) for update in (0, 99, 100, 250)] == [1e-4, 1e-4, 1e-5, 1e-6]
    assert [one_cycle(p, 0.2) for p in (0.0, 0.1, 0.2, 0.6)] == pytest.approx([0.0, 0.5, 1.0, 0.5])


def test_random_crop_shifts_and_reflects() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    padded = nn.functional.pad(image, (2, 2, 2, 2), mode="reflect")
    windows = {tuple(padded[0, 0, i : i + 4, j : j + 4].flatten().tolist()) for i in range(5) for j in range(5)}
    generator = torch.Generator().manual_seed(0)
    crops = random_crop(image.expand(400, -1, -1, -1), 2, generator)
    assert {tuple(crop.flatten().tolist()) for crop in crops} == windows


def test_augmentation_noise_has_at_most_its_standard_deviation() -> None:
    config = ClassifierTraining(epochs=1, flip=False, crop_padding=0, cutout=0, max_noise=0.1)
    grey = torch.full((256, 1, 16, 16), 128, dtype=torch.uint8)
    images = augment(grey, config, torch.Generator().manual_seed(0))
    spread = images.flatten(1).std(1)
    assert spread.max() < 0.115
    assert spread.mean().item() == pytest.approx(0.05, rel=0.15)


def test_correlation_finds_a_known_lag() -> None:
    noise = np.random.default_rng(0).standard_normal(5000)
    late = np.roll(noise, 3)
    values = correlation(noise, late, max_lag=5)
    assert int(np.argmax(values)) - 5 == 3
    assert values.max() == pytest.approx(1.0, abs=0.1)


def test_grid_places_every_image() -> None:
    images = torch.linspace(-1, 1, 6).view(6, 1, 1, 1).expand(-1, 1, 4, 4)
    picture = image_grid(images, columns=3, zoom=1)
    assert picture.size == (3 * 5 + 1, 2 * 5 + 1)
    assert [picture.getpixel((3 + 5 * c, 3 + 5 * r)) for r in (0, 1) for c in (0, 1, 2)] == [
        (v, v, v) for v in (0, 51, 102, 153, 204, 255)
    ]


def test_diagnostics_are_drawn(tmp_path: Path) -> None:
    lines = [{"update": i, "energy_gap": float(np.sin(i)), "drift_norm": 1.0 + i % 3} for i in range(100)]
    plot_diagnostics(lines, 1e-3, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def losses(folder: Path) -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if key != "cpu_seconds"} for line in read_metrics(folder)]


def start(recipe: str, overrides: list[str], folder: Path) -> "subprocess.Popen[bytes]":
    """`python -m models train --resume`, with small networks, on one thread: sums are added in the same order."""
    sets = [part for override in overrides for part in ("--set", override)]
    command = [
        sys.executable,
        "-m",
        "tests.models.small_networks",
        "train",
        recipe,
        "--out",
        str(folder),
        "--resume",
        "--device",
        "cpu",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *sets], stdout=subprocess.DEVNULL, env=environment)


def wait_for(lines: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Return once the run has logged so many lines."""
    deadline = time.monotonic() + 120
    while len(read_metrics(folder)) < lines:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_after(lines: int, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """SIGKILL once the run has logged so many lines."""
    wait_for(lines, process, folder)
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("recipe", "overrides", "kills"),
    # The energy run dies in its warm start (updates 1 to 60) and again in mid-run learning (61 to 160).
    [
        ("digits_midrun", ENERGY, (35, 95)),
        ("digits_midrun", STREAMED, (45,)),
        ("digits_short", SHORT, (25,)),
        ("digits_long", LONG, (25,)),
        ("digits_classifier", CLASSIFIER, (2,)),
    ],
)
def test_a_killed_run_resumes_to_the_same_losses(
    tmp_path: Path, recipe: str, overrides: list[str], kills: tuple[int, ...]
) -> None:
    if overrides is STREAMED:
        overrides = [*STREAMED, f"data.folder={write_classes(tmp_path / 'pictures', {'a': 90, 'b': 60})}"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(recipe, overrides, whole).wait(120) == 0
    reference = losses(whole)
    for lines in kills:
        kill_after(lines, start(recipe, overrides, killed), killed)
        reached = load_checkpoint(killed / "checkpoint.pt")["update"]
        assert 0 < reached < reference[-1]["update"]
    assert start(recipe, overrides, killed).wait(120) == 0
    assert losses(killed) == reference


def test_a_folder_in_which_a_run_is_at_work_is_refused_until_that_dies(tmp_path: Path) -> None:
    def train() -> None:
        train_recipe(load_recipe("digits_midrun", ENERGY), tmp_path, True, False, torch.device("cpu"))

    process = start("digits_midrun", ENERGY, tmp_path)
    try:
        wait_for(1, process, tmp_path)
        with pytest.raises(FolderInUse, match=re.escape(f"{tmp_path}: another program is at work in it")):
            train()
    finally:
        process.kill()
        process.wait()
    with sole_writer(tmp_path):
        pass


def test_a_half_written_metrics_line_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"update": 1, "loss": 2.0}\n{"update": 2, "lo')
    assert read_metrics(tmp_path) == [{"update": 1, "loss": 2.0}]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.arguments.image_size=16", "light does not read digits"),
        ('network={ name = "compact_resnet", arguments = { channels = 1, widths = [8, 8] } }', r"gives \(2, 10\)"),
        ("network.arguments.channels=3", "light does not read digits"),
        ("mid_run.batch_size=1498", "batch_size 1498 is more than the 1497 images of digits"),
    ],
)
def test_a_recipe_whose_parts_do_not_fit_stops_before_training(tmp_path: Path, override: str, message: str) -> None:
    recipe = load_recipe("digits_midrun", ["mid_run.bank_size=2000", override])
    with pytest.raises(ConfigError, match=message):
        train_recipe(recipe, tmp_path / "run", False, False, torch.device("cpu"))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_left_alone_and_another_recipe_is_refused(tmp_path: Path) -> None:
    def train(*more: str, resume: bool = True, amend: bool = False) -> None:
        recipe = load_recipe("digits_classifier", [*CLASSIFIER, *more])
        train_recipe(recipe, tmp_path, resume, amend, torch.device("cpu"))

    train(resume=False)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    train()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    with pytest.raises(CheckpointError, match="--resume"):
        train(resume=False)
    with pytest.raises(CheckpointError, match=r"training.epochs: 6 -> 7.*--amend"):
        train("training.epochs=7")
    train("training.epochs=7", amend=True)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["amendments"] == [{"update": 6 * 23, "changed": ["training.epochs: 6 -> 7"]}]
    assert state["update"] == 7 * 23


def test_in_low_precision_learning_goes_the_same_way(tmp_path: Path) -> None:
    """The first updates move the weights in nearly the same direction, and the bank is half the size."""

    def learn(name: str, *more: str) -> dict[str, Any]:
        overrides = [*ENERGY, "warm_start.updates=0", "mid_run.updates=10", *more]
        train_recipe(load_recipe("digits_midrun", overrides), tmp_path / name, False, False, torch.device("cpu"))
        return load_checkpoint(tmp_path / name / "checkpoint.pt")

    exact = learn("exact")
    low = learn("low", "mid_run.update_precision=bfloat16", "mid_run.bank_precision=bfloat16")
    start = learn("start", "mid_run.updates=1", "mid_run.learning_rates=[[0, 1e-30]]")

    def moved(state: dict[str, Any]) -> Tensor:
        return torch.cat([(state["network"][name] - start["network"][name]).flatten() for name in start["network"]])

    assert all(weight.dtype == torch.float32 for weight in low["network"].values())
    assert float(torch.cosine_similarity(moved(exact), moved(low), dim=0)) > 0.95
    assert not torch.equal(moved(exact), moved(low))
    assert low["bank"]["states"].dtype == torch.bfloat16
    assert exact["bank"]["states"].dtype == torch.float32


def test_divergence_stops_with_the_update_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    overrides = [*ENERGY, "warm_start.updates=0", "mid_run.learning_rates=[[0, 1e-4], [15, 1e30]]"]
    with pytest.raises(TrainingDiverged, match=r"update 1[5-9]"):
        train_recipe(load_recipe("digits_midrun", overrides), tmp_path, False, False, torch.device("cpu"))
    assert load_checkpoint(tmp_path / "checkpoint.pt")["update"] == 10


def test_a_checkpoint_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"recipe": "{}", "value": torch.ones(3)})

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, {"recipe": "{}", "value": torch.zeros(3)})
    assert torch.equal(load_checkpoint(path)["value"], torch.ones(3))


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"checkpoint.pt is not a readable checkpoint"):
        load_checkpoint(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(CheckpointError, match="was not written by"):
        load_checkpoint(path)


def test_metrics_after_the_checkpoint_are_dropped_on_resume(tmp_path: Path) -> None:
    recipe = load_recipe("digits_classifier", CLASSIFIER)
    run = TrainingRun(tmp_path, recipe, resume=False)
    run.restore()
    run.log(1, {"loss": 1.0}, echo=False)
    run.save(1, {})
    run.log(2, {"loss": 2.0}, echo=False)
    again = TrainingRun(tmp_path, recipe, resume=True)
    again.restore()
    assert [line["update"] for line in again.metrics()] == [1]


def test_log_summary_tells_first_last_and_the_settled_mean() -> None:
    lines = [{"update": i, "cpu_seconds": 1.0, "loss": float(i)} for i in range(20)] + [{"update": 20, "rare": 3.0}]
    assert summarise_log(lines) == {
        "loss": {"first": 0.0, "last": 19.0, "mean_of_last_tenth": 18.5},
        "rare": {"first": 3.0, "last": 3.0, "mean_of_last_tenth": 3.0},
    }
