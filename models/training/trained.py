"""A trained energy, to be sampled as its run sampled it: by its averaged weights, or by those that it had before."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.config import validate
from models.data import TrainingSet, open_training_set
from models.errors import CheckpointError, ConfigError
from models.gradients import Energy
from models.langevin import LangevinConfig
from models.networks import build_network, load_weights
from models.networks.conditioning import classes_of
from models.training.build import EnergyParts, build_parts
from models.training.distributed import ALONE
from models.training.energy_loop import potential
from models.training.recipe import EnergyRecipe
from models.training.run import kept_weights, load_trained


@dataclass(frozen=True)
class TrainedEnergy:
    """A run's energy, frozen and in evaluation mode, all that its chains follow besides, and what training took."""

    recipe: EnergyRecipe
    parts: EnergyParts
    data: TrainingSet
    cpu_seconds: float

    @property
    def network(self) -> nn.Module:
        """f."""
        return self.parts.training.network

    @property
    def classes(self) -> int:
        """How many labels f reads; 0 for an energy of images alone."""
        return classes_of(self.network)

    @property
    def sampler(self) -> LangevinConfig:
        """The chains' steps in training, as they were at the last update."""
        return self._potential(None)[1]

    def __call__(self, labels: Tensor | None = None) -> Energy:
        """What chains with these labels [B] sample, at the temperature of `sampler`."""
        return self._potential(labels)[0]

    def label(self, text: str) -> int:
        """A class by its name or number; raises ConfigError for one that is not there."""
        names = self.data.class_names
        if not self.classes:
            raise ConfigError(f"class {text!r}: the energy has no classes")
        if text in names:
            return names.index(text)
        if text.isdecimal() and int(text) < self.classes:
            return int(text)
        raise ConfigError(f"class {text!r}: expected 0 to {self.classes - 1}, or one of {', '.join(names)}")

    def _potential(self, labels: Tensor | None) -> tuple[Energy, LangevinConfig]:
        update = max(0, self.parts.training.update - self.recipe.warm_start.updates)
        return potential(self.recipe, self.parts, update, labels)


def load_trained_energy(checkpoint: Path, device: torch.device) -> TrainedEnergy:
    """A run's checkpoint.pt, with its averaged weights; raises CheckpointError for one of another kind."""
    state, table = load_trained(checkpoint, "energy")
    recipe = validate(EnergyRecipe, table, str(checkpoint))
    network = build_network(recipe.network.name, recipe.network.arguments)
    data = open_training_set(recipe.data)
    parts = build_parts(recipe, network, data, device, ALONE)
    parts.training.load_state_dict(state)
    network.load_state_dict(state["average"])
    network.eval().requires_grad_(False)
    return TrainedEnergy(recipe, parts, data, state["cpu_seconds"])


def load_history(energy: TrainedEnergy, folder: Path, count: int) -> Sequence[TrainedEnergy]:
    """The same energy with the last `count` weights that its run in `folder` kept, oldest first.

    Raises:
        CheckpointError: the run kept fewer, or a file does not hold its weights.
    """
    kept = kept_weights(folder)
    if not 0 < count <= len(kept):
        raise CheckpointError(f"{folder} kept the weights of {len(kept)} updates (keep_every), asked for {count}")
    return [_with_weights(energy, path) for path in list(kept.values())[-count:]]


def _with_weights(energy: TrainedEnergy, path: Path) -> TrainedEnergy:
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} does not hold weights: {error}") from error
    network = copy.deepcopy(energy.network)
    load_weights(network, weights, str(path))
    training = replace(energy.parts.training, network=network)
    return replace(energy, parts=replace(energy.parts, training=training))
