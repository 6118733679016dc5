"""What `python -m models train` does: from a recipe to a finished run."""

from pathlib import Path

import torch

from models.console import console
from models.data import load_dataset
from models.errors import ConfigError
from models.networks import build_network
from models.training.classifier_loop import train_classifier
from models.training.energy_loop import train_energy
from models.training.recipe import ClassifierRecipe, EnergyRecipe
from models.training.run import TrainingRun


def train_recipe(
    recipe: ClassifierRecipe | EnergyRecipe, folder: Path, resume: bool, amend: bool, device: torch.device
) -> None:
    """Train to the end of the recipe's schedule in `folder`; a finished run that is resumed is left as it is."""
    torch.manual_seed(recipe.seed)  # the network's first weights; everything later has its own generator
    network = build_network(recipe.network.name, recipe.network.arguments)
    train = load_dataset(recipe.data.name, "train", recipe.data.folder)
    expected = recipe.network.arguments.get("channels", 3)
    if train.images.shape[1] != expected:
        raise ConfigError(
            f"network.arguments.channels is {expected}, but {recipe.data.name} has {train.images.shape[1]} channel(s)"
        )
    run = TrainingRun(folder, recipe, resume, amend)
    console.print(f"{folder}: {recipe.kind} on {device}, {sum(p.numel() for p in network.parameters()):,} parameters")
    if isinstance(recipe, ClassifierRecipe):
        test = load_dataset(recipe.data.name, "test", recipe.data.folder)
        train_classifier(network, train, test, recipe.normalisation, recipe.training, run, recipe.seed, device)
    else:
        train_energy(network, train, recipe.sampler, recipe.warm_start, recipe.mid_run, run, recipe.seed, device)
    console.print(f"{folder}: done, {run.cpu_seconds / 3600:.2f} CPU hours in all")
