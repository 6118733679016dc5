"""What `python -m models train` does: from a recipe to a finished run."""

from pathlib import Path

import torch
from torch import nn

from models.console import console
from models.data import ImageDataset, load_dataset
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
    train = load_dataset(recipe.data.name, "train", recipe.data.folder, recipe.data.side, recipe.data.channels)
    _check_fit(recipe, network, train)
    run = TrainingRun(folder, recipe, resume, amend)
    console.print(f"{folder}: {recipe.kind} on {device}, {sum(p.numel() for p in network.parameters()):,} parameters")
    if isinstance(recipe, ClassifierRecipe):
        test = load_dataset(recipe.data.name, "test", recipe.data.folder, recipe.data.side, recipe.data.channels)
        train_classifier(network, train, test, recipe.normalisation, recipe.training, run, recipe.seed, device)
    else:
        train_energy(network, train, recipe.sampler, recipe.warm_start, recipe.mid_run, run, recipe.seed, device)
    run.close()
    console.print(f"{folder}: done, {run.cpu_seconds / 3600:.2f} CPU hours in all")


def _check_fit(recipe: ClassifierRecipe | EnergyRecipe, network: nn.Module, data: ImageDataset) -> None:
    """Two blank images through the network: a recipe whose parts do not fit stops here, with the key to change."""
    outputs = (2, len(data.class_names)) if isinstance(recipe, ClassifierRecipe) else (2,)
    blank = torch.zeros(2, *data.images.shape[1:])
    try:
        with torch.no_grad():
            found = tuple(network.eval()(blank).shape)
    except RuntimeError as error:
        raise ConfigError(f"network: {recipe.network.name} does not read {data.name}: {error}") from error
    if found != outputs:
        raise ConfigError(
            f"network.arguments: {recipe.network.name} gives {found} for two images of {data.name}, expected {outputs}"
        )
    network.train()
    batch = recipe.training.batch_size if isinstance(recipe, ClassifierRecipe) else recipe.mid_run.batch_size
    if batch > len(data):
        raise ConfigError(f"batch_size {batch} is more than the {len(data)} images of {data.name}")
