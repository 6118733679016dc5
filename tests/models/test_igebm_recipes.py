"""The recipes of IGEBM (arXiv 1903.08689): its code's numbers, their price, and that each of them trains."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from models.networks import build_network
from models.training.program import train_recipe
from models.training.recipe import FOLDER, EnergyRecipe, load_recipe, recipe_names
from models.training.run import load_checkpoint, read_metrics
from models.training.sections import FromNoise, ImplicitRun


class Row(NamedTuple):
    """A command of the code's README, in its own units: pixels in [0, 1]."""

    side: int
    steps: int
    step_lr: float
    proj_norm: float | None
    batch: int
    blocks: int
    widths: tuple[int, ...]
    classes: int
    activation: str = "leaky"
    updates: int | None = None


PAPER = {
    "cifar10": Row(32, 60, 10, 0.01, 128, 9, (128, 256, 512), 0, updates=121_200),
    "cifar10_conditional": Row(32, 60, 10, 0.01, 128, 6, (128, 256), 10, updates=74_700),
    "cifar10_conditional_wider": Row(32, 60, 10, 0.01, 128, 9, (192, 384, 768), 10, updates=21_600),
    "imagenet32_conditional": Row(32, 60, 10, 0.01, 32, 9, (256, 512, 1024), 1000),
    "imagenet128_conditional": Row(128, 50, 100, None, 16, 6, (64, 128, 256, 512), 1000, "silu", 2_238_000),
    "dsprites_conditional": Row(64, 20, 500, None, 256, 4, (64, 128), 3, "silu"),
    "mnist": Row(32, 20, 1, None, 256, 3, (64, 128, 256), 0, updates=60_000),
}
LIGHT = ("digits", "digits_conditional", "mnist", "mnist_conditional", "cifar10_light", "cifar10_conditional_light")
NAMES = pytest.mark.parametrize("name", PAPER)


def recipe_of(name: str, *overrides: str) -> EnergyRecipe:
    recipe = load_recipe(name, overrides)
    assert isinstance(recipe, EnergyRecipe)
    return recipe


def paper(name: str) -> EnergyRecipe:
    return recipe_of(f"paper/igebm_{name}")


def test_every_recipe_is_here() -> None:
    expected = {f"paper/igebm_{name}" for name in PAPER} | {f"igebm_{name}" for name in LIGHT}
    assert {name for name in recipe_names() if "igebm_" in name} == expected


@NAMES
def test_numbers_are_the_codes(name: str) -> None:
    recipe, row = paper(name), PAPER[name]
    sampler, learning, arguments = recipe.sampler, recipe.learning, recipe.network.arguments
    assert isinstance(learning, ImplicitRun)
    assert isinstance(recipe.initialiser, FromNoise)
    assert (recipe.data.shape[1], recipe.warm_start.updates) == (row.side, 0)
    assert (sampler.num_steps, sampler.step_size, sampler.box) == (row.steps, 2 * 0.005, 1.0)
    assert sampler.drift_rate == pytest.approx(4 * row.step_lr)
    assert sampler.gradient_clamp == (None if row.proj_norm is None else pytest.approx(row.proj_norm / 2))
    assert (learning.batch_size, learning.bank_size, learning.rejuvenation_prob) == (row.batch, 10_000, ((0, 0.05),))
    assert (learning.objective, learning.penalty, learning.kl_steps) == ("linear", 1.0, 0)
    assert (learning.adam_betas, learning.spread_clip, learning.learning_rates) == (
        (0.0, 0.999),
        (3.0, 0.1),
        ((0, 3e-4),),
    )
    assert (learning.dequantise, learning.data_noise) == (True, 0.0)
    assert row.updates in (None, learning.updates)
    assert len(arguments["blocks"]) == row.blocks
    assert tuple(sorted({width for width, _ in arguments["blocks"]})) == row.widths
    assert (arguments.get("classes", 0), arguments["activation"]) == (row.classes, row.activation)


@NAMES
def test_the_plan_is_arithmetic(name: str) -> None:
    """A Langevin step is a forward pass and as much again for its gradient, and a multiply-add is two operations."""
    recipe = paper(name)
    with torch.device("meta"):
        network = build_network("residual", recipe.network.arguments | {"spectral_norm": False}).eval()
    inputs = [torch.empty(1, *recipe.data.shape, device="meta")]
    if PAPER[name].classes:
        inputs.append(torch.zeros(1, dtype=torch.int64, device="meta"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    update = 2 * counter.get_total_flops() * recipe.sampler.num_steps * recipe.learning.batch_size
    hours = update * recipe.learning.updates / 50e12 / 3600
    file = (FOLDER / "paper" / f"igebm_{name}.toml").read_text()
    text = re.sub(r"\n# ", " ", file)
    told = re.search(r"= (\d+) TFLOP; ([\d,]+) updates would take (\d+) hours .* 50 TFLOP/s", text)
    assert told is not None
    assert int(told[1]) == round(update / 1e12)
    assert int(told[2].replace(",", "")) == recipe.learning.updates
    assert int(told[3]) == round(hours)
    assert "Never run by us." in text
    size = sum(parameter.numel() for parameter in network.parameters())
    assert f": {size / 1e6:.1f} M parameters" in text


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of two images."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, image in enumerate(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)):
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", [*(f"paper/igebm_{name}" for name in PAPER), *(f"igebm_{name}" for name in LIGHT)])
def test_two_updates_at_the_real_size(name: str, pictures: Path, tmp_path: Path) -> None:
    """As many blocks, but narrow: chains that moved in their box, finite losses, labels where there are classes."""
    plain = recipe_of(name)
    channels, side, _ = plain.data.shape
    arguments = plain.network.arguments
    blocks = [[4, down] for _, down in arguments["blocks"]]
    overrides = [
        f"data={{ name = 'folder', folder = '{pictures}', side = {side}, channels = {channels} }}",
        "network.arguments.stem=4",
        f"network.arguments.blocks={str(blocks).lower()}",
        "sampler.num_steps=1",
        *(f"implicit_run.{key}" for key in ("updates=2", "batch_size=2", "bank_size=5")),
    ]
    if "classes" in arguments:
        overrides.append("network.arguments.classes=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIMPID_CACHE", str(tmp_path / "cache"))
        train_recipe(recipe_of(name, *overrides), tmp_path / "run", False, False, torch.device("cpu"))
    state, lines = load_checkpoint(tmp_path / "run" / "checkpoint.pt"), read_metrics(tmp_path / "run")
    assert state["update"] == len(lines) == 2
    assert all(np.isfinite(list(line.values())).all() and line["drift_norm"] > 0 for line in lines)
    assert state["bank"]["states"].shape == (5, channels, side, side)
    assert float(state["bank"]["states"].abs().max()) <= 1
    assert (state["bank"]["labels"] is not None) == ("classes" in arguments)
