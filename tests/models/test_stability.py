"""The verdict on a run's energy gap: what it calls series whose nature is known, and what it means for the energy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.networks import ARCHITECTURES
from models.training.diagnostics import Series
from models.training.diagnostics_verdict import stability
from models.training.program import train_recipe
from models.training.recipe import load_recipe
from models.training.run import load_checkpoint, read_metrics
from tests.models.small_networks import SMALL

UPDATES = 1000
NOISE = np.random.default_rng(0).standard_normal(UPDATES)
TIME = np.arange(UPDATES) / UPDATES

SERIES: dict[str, tuple[Series, str]] = {
    "noise": (NOISE, "oscillating"),
    "noise a little above 0": (NOISE + 0.3, "oscillating"),
    "eight slow waves": (np.sin(16 * np.pi * TIME), "oscillating"),
    "noise whose size falls": (NOISE * np.exp(-4 * TIME), "oscillating"),
    "noise below 0": (NOISE - 1.5, "expanding"),
    "falling for ever": (-TIME - 0.01, "expanding"),
    "noise above 0": (NOISE + 1.5, "contracting"),
    "never at 0": (np.full(UPDATES, 3.0), "contracting"),
    "half a wave": (np.sin(np.pi * TIME), "contracting"),
    "from below to above": (TIME - 0.5, "too early to tell"),
    "two waves": (np.sin(4 * np.pi * TIME), "too early to tell"),
    "below 0 in one half only": (NOISE - 3 * (TIME < 0.5), "too early to tell"),
    "nothing": (np.zeros(UPDATES), "too early to tell"),
    "too few": (NOISE[:199] - 9, "too early to tell"),
    "enough": (NOISE[:200] - 9, "expanding"),
    "none": (NOISE[:0], "too early to tell"),
}


@pytest.mark.parametrize("name", SERIES)
def test_series_of_a_known_nature(name: str) -> None:
    series, word = SERIES[name]
    for scale in (1e-6, 1.0, 1e6):
        assert stability(scale * series).word == word
    mirrored = {"expanding": "contracting", "contracting": "expanding"}.get(word, word)
    assert stability(-series).word == mirrored


def test_swings_and_offset_are_what_they_say() -> None:
    waves = stability(np.sin(10 * np.pi * TIME))
    assert waves.swings == 9
    assert waves.offset == pytest.approx(0.0, abs=1e-9)
    assert stability(np.full(300, -2.0)).offset == -1.0


def test_growth_is_seen_though_the_gap_still_swings() -> None:
    growing = stability(NOISE * np.exp(4 * TIME))
    assert growing.word == "oscillating"
    assert growing.grows
    assert growing.growth == pytest.approx(np.exp(3), rel=0.25)
    assert not stability(NOISE).grows
    assert not stability(NOISE[:100] * np.exp(10 * TIME[:100])).grows


@pytest.mark.parametrize("step_size", [0.05, 2.0])
def test_a_gap_below_zero_raises_the_energys_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_size: float
) -> None:
    """f = c/2 |x|^2: chains whose noise is stronger than the data's spread leave d < 0 and c grows, others it falls."""
    for name, network in SMALL.items():
        monkeypatch.setitem(ARCHITECTURES, name, network)
    recipe = load_recipe(
        "digits_short",
        [
            "network={ name = 'quadratic', arguments = { curvature = 0.1 } }",
            f"sampler={{ num_steps = 2, step_size = {step_size}, temperature = 1.0 }}",
            "initialiser={ kind = 'noise' }",
            "short_run={ updates = 1, bank_size = 0, data_noise = 0.0, learning_rates = 1e-3 }",
        ],
    )
    train_recipe(recipe, tmp_path, False, False, torch.device("cpu"))
    (line,) = read_metrics(tmp_path)
    curvature = load_checkpoint(tmp_path / "checkpoint.pt")["network"]["curvature"].item()
    assert (line["energy_gap"] < 0) == (step_size == 2.0)
    assert (curvature > 0.1) == (line["energy_gap"] < 0)
