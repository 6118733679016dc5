"""Chains that start from attacked images, and trainings that begin from a bundle's weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.banks import Fresh
from models.bundle import Bundle, load_bundle
from models.data import ImageDataset
from models.errors import CheckpointError
from models.pixels import LEVEL_WIDTH, from_uint8
from models.training.attacked_starts import AttackedSource
from models.training.program import train_recipe
from models.training.recipe import load_recipe
from models.training.run import load_checkpoint, read_metrics
from models.training.sections import Attacked
from tests.conftest import ZOO

DIGITS = ZOO / "digits-midrun"
CPU = torch.device("cpu")


def starts(images: Tensor, epsilon: float) -> Tensor:
    section = Attacked(classifier=DIGITS, epsilon=epsilon, steps=10)
    source = AttackedSource(lambda count: Fresh(images[:count]), section, torch.Generator().manual_seed(0))
    return source(len(images)).images


def test_starts_are_attacked_within_budgets_of_their_own(digits_bundle: Bundle, digits_test: ImageDataset) -> None:
    images = from_uint8(digits_test.images[:200])
    attacked = starts(images, 64)
    moved = (attacked - images).flatten(1).abs().amax(1) / LEVEL_WIDTH
    assert float(moved.max()) <= 64.01
    # Budgets are uniform: their mean is half of epsilon, with a standard error of 64 / sqrt(12 * 200) = 1.3.
    assert float(moved.mean()) == pytest.approx(32, abs=5.5)
    clean, found = (digits_bundle.defence.classify(x).argmax(1) for x in (images, attacked))
    assert float((clean != found).float().mean()) > 0.3
    fooled = moved[clean != found].mean()
    assert float(fooled) > float(moved[clean == found].mean()) + 10


def test_an_energy_begins_from_a_bundles_weights_and_its_chains_from_attacked_images(tmp_path: Path) -> None:
    changes = [
        f"weights='{DIGITS}'",
        f"initialiser={{ kind = 'data', attacked = {{ classifier = '{DIGITS}', epsilon = 64, steps = 2 }} }}",
        "warm_start.updates=0",
        "sampler.num_steps=2",
        "mid_run.bank_size=64",
        "mid_run.batch_size=64",
        "mid_run.learning_rates=1e-12",
        "mid_run.log_every=1",
        "mid_run.checkpoint_every=1",
    ]
    for name, runs in {"whole": (4,), "parts": (2, 4)}.items():
        for updates in runs:
            recipe = load_recipe("digits_midrun", [*changes, f"mid_run.updates={updates}"])
            train_recipe(recipe, tmp_path / name, True, True, CPU)
    whole, parts = (read_metrics(tmp_path / name) for name in ("whole", "parts"))
    assert [line["energy_gap"] for line in whole] == [line["energy_gap"] for line in parts]
    # Attacked images that have hardly moved yet have higher energies than data, by more than these gaps' noise.
    assert all(line["energy_gap"] < -1 for line in whole)
    ended = load_checkpoint(tmp_path / "whole" / "checkpoint.pt")["average"]
    for key, value in load_bundle(DIGITS, CPU).defence.energy.state_dict().items():
        torch.testing.assert_close(ended[key], value)


def test_what_holds_no_weights_of_that_kind_is_no_beginning(tmp_path: Path) -> None:
    def begin() -> None:
        train_recipe(load_recipe("digits_midrun", [f"weights='{tmp_path}'"]), tmp_path / "run", False, False, CPU)

    with pytest.raises(CheckpointError, match="is neither a bundle nor a folder of weights"):
        begin()
    (tmp_path / "recipe.json").write_text('{"kind": "classifier"}')
    with pytest.raises(CheckpointError, match="holds weights of kind 'classifier', expected 'energy'"):
        begin()
    (tmp_path / "recipe.json").write_text('{"kind": "energy"}')
    with pytest.raises(CheckpointError, match=r"weights\.safetensors does not exist"):
        begin()
