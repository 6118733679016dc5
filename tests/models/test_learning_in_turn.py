"""Runs that begin from another run's weights, learn from some classes alone, and leave the others' energies alone."""

from pathlib import Path

import pytest
import torch

from models.banks import Fresh
from models.data import DataSection, load_dataset, open_training_set
from models.errors import CheckpointError, ConfigError, DataError, NetworkError
from models.networks import build_network
from models.networks.vector_energy import VectorEnergy
from models.training.initialisers import turned_source
from models.training.program import train_recipe
from models.training.recipe import load_energy_recipe, load_recipe
from models.training.run import load_checkpoint

SMALL = ("network.arguments.width=8", "sampler.num_steps=1", "warm_start.updates=0", "mid_run.updates=2")
CPU = torch.device("cpu")


def train(folder: Path, *overrides: str, resume: bool = False) -> dict[str, torch.Tensor]:
    """The averaged weights."""
    train_recipe(load_recipe("digits_midrun", (*SMALL, *overrides)), folder, resume, False, CPU)
    average: dict[str, torch.Tensor] = load_checkpoint(folder / "checkpoint.pt")["average"]
    return average


def test_the_chosen_classes_keep_their_labels_and_are_all_there() -> None:
    whole = load_dataset("digits", "train")
    some = open_training_set(DataSection(name="digits", classes=(7, 2)))
    assert len(some) == int(((whole.labels == 2) | (whole.labels == 7)).sum())
    kept = whole.of_classes((7, 2))
    assert kept.labels.unique().tolist() == [2, 7]
    assert torch.equal(kept.images[kept.labels == 7], whole.images[whole.labels == 7])
    assert kept.class_names == whole.class_names
    with pytest.raises(DataError, match=r"digits has no images with labels \[10\]"):
        whole.of_classes((1, 10))


def test_streams_have_no_labels_to_choose_by() -> None:
    with pytest.raises(ConfigError, match=r"classes \(1,\): streams have no labels"):
        load_recipe("cifar10_midrun_light", ["data={ name = 'celeba64', streaming = true, classes = [1] }"])


def test_a_run_begins_from_the_averaged_weights_of_another_and_knows_them_again(tmp_path: Path) -> None:
    first = train(tmp_path / "first")
    given = f"weights={tmp_path}/first/checkpoint.pt"
    still = "mid_run.learning_rates=1e-12"
    second = train(tmp_path / "second", given, still, "seed=1", "data.classes=[0,1]")
    for name, weight in first.items():
        assert torch.allclose(second[name], weight, atol=1e-8), name


def test_what_is_learned_of_some_classes_leaves_the_energies_of_the_others(tmp_path: Path) -> None:
    arguments = "network.arguments={ size = 64, widths = [32, 32], classes = 10, fixed = true }"
    overrides = ("data.name=digits", arguments, "implicit_run.updates=5")
    energies = []
    for turn, more in enumerate(([], [f"weights={tmp_path}/0/checkpoint.pt"])):
        recipe = load_recipe("mnist_continual", (*overrides, f"data.classes=[{turn}]", f"seed={turn}", *more))
        train_recipe(recipe, tmp_path / str(turn), False, False, CPU)
        network = VectorEnergy(64, [32, 32], 10, fixed=True)
        network.load_state_dict(load_checkpoint(tmp_path / str(turn) / "checkpoint.pt")["average"])
        x = torch.linspace(-1, 1, 640).view(10, 1, 8, 8)
        with torch.no_grad():
            energies.append(network(x, torch.arange(10)))
    changed = energies[0] != energies[1]
    assert changed.tolist() == [label == 1 for label in range(10)]


def test_turned_starts_are_in_each_attitude_of_a_square_as_often() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3)
    source = turned_source(lambda count: Fresh(image.expand(count, 1, 3, 3)), torch.Generator().manual_seed(0))
    found, counts = source(4000).images.flatten(1).unique(dim=0, return_counts=True)
    turns = [torch.rot90(each, quarters, (2, 3)).flatten() for each in (image, image.flip(3)) for quarters in range(4)]
    assert {tuple(each.tolist()) for each in turns} == {tuple(each.tolist()) for each in found}
    assert float((counts / 500 - 1).abs().max()) < 0.2


def test_other_weights_than_before_and_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    train(tmp_path / "first")
    train(tmp_path / "other", "seed=1")
    given = f"weights={tmp_path}/first/checkpoint.pt"
    train(tmp_path / "second", given)
    (tmp_path / "other/checkpoint.pt").replace(tmp_path / "first/checkpoint.pt")
    with pytest.raises(CheckpointError, match="the network that it began from has weights"):
        train(tmp_path / "second", given, resume=True)
    with pytest.raises(NetworkError, match=r"first/checkpoint\.pt does not fit LightEnergy: layers"):
        train(tmp_path / "third", given, "network.arguments.width=4")


def test_what_can_not_learn_so_is_refused() -> None:
    with pytest.raises(ConfigError, match="'digits_classifier': expected kind 'energy', got 'classifier'"):
        load_energy_recipe("digits_classifier")
    with pytest.raises(NetworkError, match="without classes would have nothing to learn"):
        build_network("vector", {"size": 4, "widths": [8], "fixed": True})
