"""Energies of chains against those of data, and likelihoods, where the answers are known."""

import json
import math
from pathlib import Path

import pytest
import torch

from models.__main__ import main
from models.bundle import Bundle
from models.data import ImageDataset
from models.evaluation.ais import LogZ
from models.evaluation.annealing_bases import BoxBase
from models.evaluation.density import compare, density_result, spread
from models.evaluation.density_plots import plot_energies, plot_histograms, save_grids
from models.evaluation.likelihood import likelihood, likelihood_result
from models.evaluation.long_chains import Snapshot, nats
from models.pixels import LEVEL_WIDTH, dequantise, from_uint8, to_uint8
from models.streams import Stream
from tests.conftest import ZOO


def test_equal_samples_are_not_told_apart_and_shifted_ones_are() -> None:
    """N(0, 1) against N(d, 1): gap d, AUC Phi(-d / sqrt 2), Kolmogorov distance 2 Phi(d / 2) - 1."""
    chains, data = Stream(("a",)).normal((2000,)), Stream(("b",)).normal((3000,))
    equal = compare(chains, data)
    assert equal.p_value > 0.01
    assert equal.gap == pytest.approx(0.0, abs=4 * equal.gap_error)
    assert equal.gap_error == pytest.approx(math.sqrt(1 / 2000 + 1 / 3000), rel=0.1)
    shifted = compare(chains, data + 0.5)
    assert shifted.gap == pytest.approx(0.5, abs=4 * shifted.gap_error)
    assert shifted.auc == pytest.approx(0.5 * math.erfc(0.25), abs=0.04)
    assert shifted.kolmogorov == pytest.approx(math.erf(0.25 / math.sqrt(2)), abs=0.04)
    assert shifted.p_value < 1e-20


def test_a_spread_is_of_the_sample() -> None:
    found = spread(torch.arange(101.0))
    assert (found.count, found.mean, found.quantiles) == (101, 50.0, (5.0, 25.0, 50.0, 75.0, 95.0))


def snapshots() -> list[Snapshot]:
    states = torch.full((8, 1, 4, 4), 0.5)
    states[0, 0, 0, :2] = 1.5
    return [Snapshot(100, states, torch.arange(8.0)), Snapshot(1000, states, torch.arange(8.0) + 100)]


def test_a_result_holds_every_comparison_as_plain_values() -> None:
    """32 independent chains of 40 points, 25 steps apart: the second half is diagnosed."""
    data = {"train": torch.arange(10.0), "test": torch.arange(10.0) + 1}
    trace = Stream(("trace",)).normal((41, 32, 2))
    trace[:20, :16, 0] += 100.0  # chains disagree before the second half only
    result = json.loads(json.dumps(density_result(data, snapshots(), trace, ("energy", "mean pixel"), 25)))
    assert result["snapshots"][0]["outside"] == 2 / 128
    assert result["snapshots"][0]["against"]["train"]["gap"] == pytest.approx(1.0)
    assert result["snapshots"][1]["against"]["test"]["auc"] == 1.0
    energy, pixel = result["diagnostics"]
    assert (energy["name"], pixel["name"], energy["draws"]) == ("energy", "mean pixel", 21)
    assert energy["rhat"] < 1.1
    assert result["diagnosed_from_step"] == 500


def test_pictures_have_a_panel_for_each_snapshot(tmp_path: Path) -> None:
    from PIL import Image

    data = {"train": torch.arange(10.0)}
    heights = []
    for count in (1, 2):
        plot_histograms(data, snapshots()[:count], tmp_path / "histograms.png")
        with Image.open(tmp_path / "histograms.png") as picture:
            heights.append(picture.height)
    assert heights[1] - heights[0] == pytest.approx(190, abs=2)
    plot_energies(data, snapshots(), torch.arange(24.0).view(3, 8), 50, tmp_path / "energies.png")
    with Image.open(tmp_path / "energies.png") as picture:
        assert len(set(picture.convert("RGB").get_flattened_data())) > 20
    save_grids(snapshots(), tmp_path)
    for step in (100, 1000):
        with Image.open(tmp_path / f"images-{step:08d}.png") as picture:
            assert picture.size == (2 * (8 * 5 + 1), 2 * (1 * 5 + 1))


def test_dequantised_pixels_fill_their_levels_and_go_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(400, 1)
    images = dequantise(pixels, torch.Generator().manual_seed(0))
    back = to_uint8(images)
    assert int((back != pixels).sum()) < 10  # of 102,400: rounding at the edges
    assert int((back.int() - pixels.int()).abs().max()) <= 1
    inside = (images - from_uint8(pixels)) / LEVEL_WIDTH
    assert float(inside.min()) == pytest.approx(-0.5, abs=1e-3)
    assert float(inside.max()) == pytest.approx(0.5, abs=1e-3)
    assert float(inside.std()) == pytest.approx(math.sqrt(1 / 12), rel=0.02)
    assert not BoxBase().outside(images).any()


def test_a_uniform_density_of_pixels_costs_eight_bits() -> None:
    """p = 1 / (256 level widths) a pixel; halving the density costs a bit more an image."""
    flat = torch.zeros(10)
    log_z = 48 * math.log(256 * LEVEL_WIDTH)
    found = likelihood(flat, log_z, 48)
    assert (found.bits_per_dimension, found.bits_error) == (pytest.approx(8.0), 0.0)
    assert found.nats == pytest.approx(-log_z)
    assert likelihood(flat, log_z + math.log(2), 48).bits_per_dimension == pytest.approx(8 + 1 / 48)


def test_a_result_says_what_is_a_bound() -> None:
    up = LogZ(1.0, 0.1, 0.9, 0.1, 10.0, 20, 0.7)
    energies = [("test", torch.tensor([1.0, 3.0]))]
    none = likelihood_result(up, None, False, energies, 4)
    assert none["log_z"]["upper"] is None
    assert none["likelihood"]["test"]["at_least"] is None
    down = LogZ(2.0, 0.1, 2.1, 0.1, 10.0, 20, 0.7)
    both = likelihood_result(up, down, False, energies, 4)
    assert both["log_z"]["upper"]["is"] == "estimate"
    assert likelihood_result(up, down, True, energies, 4)["log_z"]["upper"]["is"] == "stochastic upper bound"
    found = both["likelihood"]["test"]
    assert (found["at_most"]["nats"], found["at_least"]["nats"]) == (-3.0, -4.0)
    assert found["at_most"]["nats_error"] == pytest.approx(1.0)


def test_real_digits_lie_lower_than_the_same_pixels_shuffled(digits_bundle: Bundle, digits_test: ImageDataset) -> None:
    images = from_uint8(digits_test.images[:200])
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    shuffled = images.flatten(1)[:, order].view_as(images)
    energy = digits_bundle.defence.energy
    assert compare(nats(energy, shuffled, 1e-3), nats(energy, images, 1e-3)).auc > 0.99


def test_the_likelihood_of_digits_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A density on the box of pixels can not be worse for its data than the uniform one; what was walked is kept."""
    command = ["likelihood", "--bundle", str(ZOO / "digits-midrun"), "--images", "100", "--device", "cpu"]
    command += ["--particles", "6", "--chunk", "4", "--leapfrog-steps", "1", "--out", str(tmp_path)]
    assert main([*command, "--rungs", "60"]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["log_z"]["upper"] is None
    # Annealing this short overestimates the likelihood: it is an upper end, and says so.
    assert result["likelihood"]["test"]["at_most"]["bits_per_dimension"] < 8.0
    walks = json.loads((tmp_path / "walks.json").read_text())["walks"]
    assert {name: len(walk["log_weights"]) for name, walk in walks.items()} == {"up 0": 4, "up 1": 2}

    kept = (tmp_path / "walks.json").stat().st_mtime_ns
    assert main([*command, "--rungs", "60"]) == 0
    assert json.loads((tmp_path / "result.json").read_text())["log_z"] == result["log_z"]
    assert (tmp_path / "walks.json").stat().st_mtime_ns == kept
    assert main([*command, "--rungs", "61"]) == 2
    assert "belongs to another run" in capsys.readouterr().err
    assert main([*command, "--rungs", "60", "--power", "0.5"]) == 2
    assert "power: Input should be greater than or equal to 1, got 0.5" in capsys.readouterr().err
    assert main([*command, "--rungs", "60", "--base", "gaussian"]) == 2
    assert "needs --base-scale" in capsys.readouterr().err
    (tmp_path / "walks.json").write_text("{}")
    assert main([*command, "--rungs", "60"]) == 2
    assert f"{tmp_path / 'walks.json'} does not hold annealed walks" in capsys.readouterr().err
