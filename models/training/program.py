"""What `python -m models train` does: from a recipe to a finished run."""

from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from models.console import console
from models.data import ImageDataset, TrainingSet, held_out_set, load_dataset, open_training_set
from models.errors import ConfigError, NetworkError
from models.files import sole_writer
from models.networks import build_network
from models.networks.conditioning import classes_of
from models.training.build import EnergyParts, build_parts
from models.training.classifier_loop import train_classifier
from models.training.distributed import World, joined_world
from models.training.energy_loop import train_energy
from models.training.frozen_parts import begin_from
from models.training.recipe import ClassifierRecipe, EnergyRecipe
from models.training.run import TrainingRun
from models.training.sections import FromData, FromNoise


def train_recipe(
    recipe: ClassifierRecipe | EnergyRecipe,
    folder: Path,
    resume: bool,
    amend: bool,
    device: torch.device,
    part: TrainingSet | None = None,
) -> None:
    """Train to the end of the recipe's schedule in `folder`; a finished run that is resumed is left as it is.

    Under `torchrun` every process calls this, and they train one energy together.

    Args:
        part: what is trained on of the recipe's data, or other labels of it; None is all of it.
    """
    torch.manual_seed(recipe.seed)  # the network's first weights; everything later has its own generator
    network = build_network(recipe.network.name, recipe.network.arguments)
    train = open_training_set(recipe.data) if part is None else part
    with joined_world(device) as (world, own_device):
        check_fit(recipe, network, train, world)
        if isinstance(recipe, EnergyRecipe):
            parts = build_parts(recipe, network, train, own_device, world)
            check_starts(parts, train)
        with sole_writer(folder) if world.leads else nullcontext():
            run = TrainingRun(folder, recipe, resume, amend, world)
            size = sum(parameter.numel() for parameter in network.parameters())
            console.print(f"{folder}: {recipe.kind} on {own_device} x {world.size}, {size:,} parameters")
            if isinstance(recipe, EnergyRecipe):
                train_energy(recipe, parts, run)
            else:
                assert isinstance(train, ImageDataset)  # a classifier's recipe refuses streams
                _train_classifier(recipe, network, train, run, own_device)
            run.close()
        console.print(f"{folder}: done, {run.cpu_seconds / 3600:.2f} CPU hours in all")


def _train_classifier(
    recipe: ClassifierRecipe, network: nn.Module, train: ImageDataset, run: TrainingRun, device: torch.device
) -> None:
    monitored = held_out_set(recipe.data) or load_dataset(
        recipe.data.name, "test", recipe.data.folder, recipe.data.side, recipe.data.channels
    )
    name = "held_out" if recipe.data.held_out else "test"
    if recipe.weights is not None:
        begin_from(network, recipe.weights, "classifier")
    train_classifier(network, train, monitored, recipe.normalisation, recipe.training, run, recipe.seed, device, name)


def check_fit(recipe: ClassifierRecipe | EnergyRecipe, network: nn.Module, data: TrainingSet, world: World) -> None:
    """Two blank images through the network: a recipe whose parts do not fit stops here, with the key to change."""
    outputs = (2, len(data.class_names)) if isinstance(recipe, ClassifierRecipe) else (2,)
    inputs = [torch.zeros(2, *data.shape)]
    if classes_of(network):
        inputs.append(torch.zeros(2, dtype=torch.int64))
    try:
        with torch.no_grad():
            found = tuple(network.eval()(*inputs).shape)
    except RuntimeError as error:
        raise ConfigError(f"network: {recipe.network.name} does not read {data.name}: {error}") from error
    if found != outputs:
        raise ConfigError(
            f"network.arguments: {recipe.network.name} gives {found} for two images of {data.name}, expected {outputs}"
        )
    network.train()
    batch = recipe.training.batch_size if isinstance(recipe, ClassifierRecipe) else recipe.learning.batch_size
    if batch > len(data):
        raise ConfigError(f"batch_size {batch} is more than the {len(data)} images of {data.name}")
    if batch < world.size:
        raise ConfigError(f"batch_size {batch} is less than the {world.size} processes that share it")
    if isinstance(recipe, ClassifierRecipe) and world.size > 1:
        raise ConfigError(f"a classifier trains in one process, got {world.size}")
    if isinstance(recipe, EnergyRecipe):
        if classes_of(network):
            check_labels_are_known(recipe, classes_of(network), data)
        elif recipe.implicit_run is not None and recipe.implicit_run.label_weight:
            raise ConfigError(
                f"implicit_run.label_weight: expected 0 for an energy without classes, got "
                f"{recipe.implicit_run.label_weight}"
            )


def check_labels_are_known(recipe: EnergyRecipe, classes: int, data: TrainingSet) -> None:
    """A conditional energy's images have labels, and so have its chains."""
    if not isinstance(data, ImageDataset):
        raise ConfigError(f"data.streaming: a conditional energy reads labels, and streams of {data.name} have none")
    if classes != len(data.class_names):
        raise ConfigError(f"network.arguments.classes: {data.name} has {len(data.class_names)} classes, got {classes}")
    if recipe.warm_start.updates:
        raise ConfigError(f"warm_start.updates: expected 0 for a conditional energy, got {recipe.warm_start.updates}")
    if not isinstance(recipe.initialiser, FromNoise | FromData) or recipe.long_run is not None:
        raise ConfigError(
            f"initialiser.kind: chains with labels start from 'noise' or 'data', and never in long_run; got "
            f"{recipe.initialiser.kind!r} in {recipe.regime} learning"
        )


def check_starts(parts: EnergyParts, data: TrainingSet) -> None:
    """The generator makes images of the dataset's shape."""
    if parts.starter is None:
        return
    latent_size = getattr(parts.starter, "latent_size", None)
    if not isinstance(latent_size, int):
        raise NetworkError(f"initialiser: {type(parts.starter).__name__} is not a generator, it has no latent_size")
    with torch.no_grad():
        latents = torch.zeros(2, latent_size, device=parts.training.device)
        found = tuple(parts.starter.eval()(latents).shape[1:])
    if found != data.shape:
        raise ConfigError(
            f"initialiser: {type(parts.starter).__name__} makes images of shape {found}, {data.name} has {data.shape}"
        )
