"""The synthesis experiment to its end, on an energy whose samples are known: a Gaussian about the learned mean."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.data import load_dataset
from models.evaluation.features import FeatureNetwork
from models.evaluation.long_chains import read_snapshot
from models.networks import ARCHITECTURES
from models.pixels import from_uint8
from models.reproduce.life_cycle_synthesis import PICTURE, Size, remake
from models.training.run import read_metrics
from tests.models.small_networks import SMALL
from tests.models.test_energy_learning import GENERATOR

CPU = torch.device("cpu")
TEMPERATURE = 0.09
MINIATURE = Size(
    recipe="digits_short",
    overrides=(
        GENERATOR,
        f"sampler={{ num_steps = 5, step_size = 0.3, temperature = {TEMPERATURE}, precision = 'float32' }}",
        "short_run.updates=60",
        "short_run.bank_size=200",
        "short_run.learning_rates=0.1",
        "short_run.average_decay=0.9",
        "short_run.checkpoint_every=60",
    ),
    count=200,
)


class OneCentre(nn.Module):
    """|x - c|^2 / 2."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(1, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.centre).flatten(1).square().sum(1) / 2


class Pixels(nn.Module):
    """[B, 3, 8, 8] in [0, 255] to the 64 of the first channel, in [-1, 1]."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels[:, 0].flatten(1) / 127.5 - 1


def by_pixels(device: torch.device) -> FeatureNetwork:
    return FeatureNetwork("Pixels", "the pixels", Pixels(), device)


def test_chains_of_both_runs_are_scored_after_their_lives_in_learning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMPID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(ARCHITECTURES, "light", OneCentre)
    monkeypatch.setitem(ARCHITECTURES, "small_generator", SMALL["small_generator"])
    found = remake(tmp_path, CPU, MINIATURE, by_pixels)
    titles = dict.fromkeys(number.what.split(": ")[0] for number in found.numbers)
    steps = {}
    for name in ("generator", "noise"):
        ages = [line["age"] for line in read_metrics(tmp_path / name)][-15:]
        steps[name] = 5 * round(sum(ages) / 15)
    assert steps["generator"] <= 10 < 30 < steps["noise"]  # chains from noise live on
    assert list(titles) == [
        "generator alone",
        f"generator, {steps['generator']} steps",
        f"noise, {steps['noise']} steps",
        "real images",
    ]
    papers = {number.what: number.paper for number in found.numbers if number.paper is not None}
    assert papers == {
        f"generator, {steps['generator']} steps: FD-Pixels (paper: FID)": 22.1,
        f"noise, {steps['noise']} steps: FD-Pixels (paper: FID)": 40.58,
    }
    ends = read_snapshot(tmp_path / "chains-noise" / f"snapshot-{steps['noise']:08d}.safetensors").states
    mean = from_uint8(load_dataset("digits", "train").images).mean(0)
    # x' = x - s^2 (x - c) / (2 T) + s n has variance T / (1 - s^2 / (4 T)).
    assert float(ends.var(0).mean()) == pytest.approx(TEMPERATURE / (1 - 0.3**2 / (4 * TEMPERATURE)), rel=0.05)
    assert float((ends.mean(0) - mean).square().mean().sqrt()) < 0.1
    ours = {number.what: number.ours or 0.0 for number in found.numbers}
    assert ours["real images: FD-Pixels"] < ours[f"noise, {steps['noise']} steps: FD-Pixels (paper: FID)"]
    assert (tmp_path / PICTURE).stat().st_size > 1000

    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")}
    assert remake(tmp_path, CPU, MINIATURE, by_pixels) == found
    assert {path: path.stat().st_mtime_ns for path in written} == written
