"""The likelihood experiment to its end at temperatures that flatten any energy: every answer is known."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from models.evaluation.gaussian_bits import gaussian_bits
from models.reproduce.igebm_likelihood import Size, agreed, explain, remake

CPU = torch.device("cpu")
SMALL = (
    "network.arguments.stem=4",
    "network.arguments.blocks=[[4, true]]",
    "implicit_run.updates=2",
    "implicit_run.batch_size=8",
    "implicit_run.bank_size=16",
)
SIZE = Size(overrides=SMALL, times=(1e9,), chains=6, steps=100, block=25, rungs=3, leapfrog_steps=1)


def test_a_flat_density_is_worth_8_bits_and_it_goes_on_to_the_same(tmp_path: Path) -> None:
    found = remake(tmp_path, CPU, SIZE)
    numbers = {number.what: number.ours for number in found.numbers}
    log_z = 64 * math.log(2 + 2 / 255)
    ends = found.details["1e+09"]["likelihood"]["log_z"]
    assert [ends[end]["value"] for end in ("lower", "upper")] == pytest.approx([log_z] * 2, abs=0.01)
    for name in ("train", "test"):
        for end in ("below", "above"):
            assert numbers[f"1e+09 x learning's temperature: {name} images, by log Z from {end}"] == 8.0
    assert numbers["test images, uniform over the 17 levels that occur"] == pytest.approx(math.log2(17), abs=1e-3)
    assert "not fewer than the Gaussian's" in found.why
    for picture in found.pictures:
        with Image.open(tmp_path / picture) as opened:
            assert opened.size[0] > 100

    shutil.rmtree(tmp_path / "chains-1e+09")
    (tmp_path / "walks-1e+09" / "walks.json").unlink()
    again = remake(tmp_path, CPU, SIZE)
    assert again.model_dump(exclude={"cpu_hours"}) == found.model_dump(exclude={"cpu_hours"})


def test_a_gaussian_is_worth_its_entropy() -> None:
    """Levels of N(128, 20^2), rounded: log2(20 sqrt(2 pi e)) bits, and a little for 16 variances that were fitted."""
    drawn = torch.randn(5000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    train, test = (128 + 20 * drawn).round().clamp(0, 255).to(torch.uint8).split(2500)
    assert gaussian_bits(train, test, 0) == pytest.approx(math.log2(20 * math.sqrt(2 * math.pi * math.e)), abs=0.02)


def measured(most: float, least: float, lower: float = 0.0, upper: float = 0.0) -> dict[str, Any]:
    bits = {"at_most": {"bits_per_dimension": most}, "at_least": {"bits_per_dimension": least}}
    log_z = {"lower": {"value": lower}, "upper": {"value": upper}}
    return {"likelihood": {"log_z": log_z, "likelihood": {"train": bits, "test": bits}}}


def test_a_temperature_at_which_the_ends_disagree_is_not_chosen() -> None:
    apart, contradictory = measured(-20.0, 16.0, -2000.0, -400.0), measured(11.25, 3.0, 200.0, -150.0)
    found = {1.0: contradictory, 2.0: apart, 10.0: measured(4.0, 4.3, 0.0, 13.0), 100.0: measured(5.0, 5.1)}
    assert agreed(found) == 10.0
    assert agreed({1.0: contradictory, 2.0: apart, 3.0: measured(4.1, 4.0, 4.0, 0.0)}) is None
    why = explain(found, gaussian=4.2, levels=17)
    assert "at least 11.25 bits a pixel by log Z from below, more than the 8" in why
    assert "Log Z from above lies 350 nats under that" in why
    assert "agree to within 0.5 bits at 10, 100 times" in why
    assert "test images cost 4.00 to 4.30 bits, about as many as the Gaussian's 4.20" in why
    alone = explain({2.0: apart}, gaussian=4.2, levels=17)
    assert "lies 1,600 nats over that: log Z is not known." in alone
    assert "At no temperature do both ends of log Z agree to within 0.5 bits" in alone
