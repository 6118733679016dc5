"""The density that long-run learning fits, p(x) = exp(-U(x)) / Z with U = sum_i f_i / T_i + |x|^2 / (2 tau^2).

U is in nats. EBM Life Cycle (arXiv 2205.12243) samples it with the temperatures of f and its prior, but not the
Gaussian term, raised by one factor: `joint_temp`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from models.bundle import load_bundle, sha256
from models.errors import BundleError, CheckpointError, ConfigError
from models.gradients import Energy
from models.kept import kept_tensors
from models.langevin import LangevinConfig, add_energies
from models.networks import build_network, load_weights
from models.training.run import load_checkpoint


@dataclass(frozen=True)
class DensityModel:
    """Networks f_i with their temperatures T_i, and the Gaussian term's tau in [-1, 1] pixel units.

    `sampler` is how the first of them was trained to be sampled, `data` the dataset that it learned, `digest` names
    the weights.
    """

    terms: tuple[tuple[nn.Module, float], ...]
    tau: float | None
    sampler: LangevinConfig
    data: str
    digest: str

    def target(self, joint_temp: float = 1.0) -> tuple[Energy, float]:
        """(energy, temperature) of the density exp(-energy / temperature).

        A network alone is left as it is, with its own temperature: samplers have a faster gradient for networks.
        """
        if len(self.terms) == 1 and self.tau is None:
            network, temperature = self.terms[0]
            return network, temperature * joint_temp
        return add_energies([(f, temperature * joint_temp) for f, temperature in self.terms], self.tau), 1.0


def density_of_bundle(folder: Path, tau: float | None, device: torch.device) -> DensityModel:
    """A bundle's energy at the temperature that it was trained at; raises BundleError when none is recorded."""
    bundle = load_bundle(folder, device)
    training = bundle.manifest.training
    if training is None:
        raise BundleError(f"{folder} does not say how it was trained, so not at which temperature it is a density")
    sampler, data = _of_recipe(training.energy.recipe, folder)
    terms = ((bundle.defence.energy, sampler.temperature),)
    return DensityModel(terms, tau, sampler, data, bundle.manifest.weights_digest)


def density_of_checkpoints(paths: Sequence[Path], tau: float | None, device: torch.device) -> DensityModel:
    """The sum of energies trained by `python -m models train`, averaged weights, each at its own temperature.

    The first one's sampler is the density's; raises ConfigError when they did not learn the same dataset.

    Args:
        paths: checkpoint.pt of a run, or .safetensors of averaged weights with the recipe as metadata.
    """
    terms, samplers, names, digest = [], [], [], hashlib.sha256()
    for path in paths:
        recipe, average = _weights(path)
        sampler, name = _of_recipe(recipe, path)
        network = build_network(recipe["network"]["name"], recipe["network"]["arguments"])
        load_weights(network, average, str(path))
        weights = {key: value.contiguous() for key, value in average.items()}
        digest.update(sha256(save_safetensors(weights)).encode())
        network = network.eval().requires_grad_(False)
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        terms.append((network, sampler.temperature))
        samplers.append(sampler)
        names.append(name)
    if len(set(names)) > 1:
        raise ConfigError(f"energies of one density must have learned the same data, got {', '.join(names)}")
    return DensityModel(tuple(terms), tau, samplers[0], names[0], digest.hexdigest())


def _weights(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    """The recipe, and the averaged weights that it learned."""
    if path.suffix != ".safetensors":
        state = load_checkpoint(path)
        return json.loads(state["recipe"]), state["average"]
    kept = kept_tensors(path, (), "an energy's weights")
    if kept is None or "recipe" not in kept[1]:
        raise CheckpointError(f"{path} is missing, or does not say by which recipe its weights were learned")
    return json.loads(kept[1]["recipe"]), kept[0]


def _of_recipe(recipe: Mapping[str, Any], source: Path) -> tuple[LangevinConfig, str]:
    if "sampler" not in recipe:
        raise CheckpointError(f"{source} holds a recipe of kind {recipe.get('kind')!r}, expected an energy's")
    return LangevinConfig(**recipe["sampler"]), recipe["data"]["name"]
