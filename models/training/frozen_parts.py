"""Networks that learned before: to stand still beside one that learns, or to be where it begins."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from models.bundle import MANIFEST, load_bundle
from models.errors import CheckpointError, ConfigError
from models.networks import build_network, load_weights
from models.networks.conversion import load_generator
from models.pixels import Normalisation
from models.training.run import load_trained
from models.training.sections import Prior

RECIPE, WEIGHTS = "recipe.json", "weights.safetensors"
Kind = Literal["energy", "classifier"]


def load_prior(prior: Prior, device: torch.device) -> tuple[nn.Module, float] | None:
    """f_prior, frozen, with T_prior; None where the prior is a Gaussian term alone.

    Raises:
        ConfigError: a checkpoint's own prior is not the Gaussian term of this one, so that its f alone means little.
    """
    if prior.energy is None:
        return None
    if prior.network is not None and prior.temperature is not None:
        network = build_network(prior.network.name, prior.network.arguments)
        load_weights(network, _read_safetensors(prior.energy), str(prior.energy))
        return frozen(network, device), prior.temperature
    state, recipe = load_trained(prior.energy, "energy")
    before = recipe.get("prior") or {}
    if before.get("energy") is not None:
        raise ConfigError(f"prior.energy: {prior.energy} has a prior energy of its own; expected one without")
    if before.get("tau") != prior.tau:
        raise ConfigError(f"prior.tau: {prior.energy} was trained with {before.get('tau')}, got {prior.tau}")
    temperature: float = recipe["sampler"]["temperature"]
    return frozen(_rebuilt(state["average"], recipe, prior.energy), device), temperature


def averaged_energy(path: Path, device: torch.device) -> nn.Module:
    """The averaged network of an energy's run, or of a folder that keeps one (see `learned`), frozen."""
    weights, recipe = learned(path, "energy")
    return frozen(_rebuilt(weights, recipe, path), device)


def trained_classifier(path: Path, device: torch.device) -> tuple[nn.Module, Normalisation]:
    """The classifier of a bundle's folder, or of what `learned` reads, frozen, and what it reads."""
    if (path / MANIFEST).exists():
        shipped = load_bundle(path, device).defence
        return shipped.classifier, shipped.normalisation
    weights, recipe = learned(path, "classifier")
    return frozen(_rebuilt(weights, recipe, path), device), Normalisation(**recipe["normalisation"])


def begin_from(network: nn.Module, path: Path, kind: Kind) -> None:
    """Load what a bundle's folder, or what `learned` reads, has for a network of that kind.

    Raises:
        NetworkError: the weights are another architecture's.
    """
    if (path / MANIFEST).exists():
        part: nn.Module = getattr(load_bundle(path, torch.device("cpu")).defence, kind)
        load_weights(network, part.state_dict(), str(path))
    else:
        load_weights(network, learned(path, kind)[0], str(path))


def learned(path: Path, kind: Kind) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Averaged weights and recipe of a run's checkpoint.pt, or of a folder with weights.safetensors and recipe.json.

    Raises:
        CheckpointError: `path` is neither, damaged, or of another kind.
    """
    if not path.is_dir():
        state, recipe = load_trained(path, kind)
        return state["average"], recipe
    try:
        recipe = json.loads((path / RECIPE).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is neither a bundle nor a folder of weights: {RECIPE}: {error}") from error
    if recipe.get("kind") != kind:
        raise CheckpointError(f"{path} holds weights of kind {recipe.get('kind')!r}, expected {kind!r}")
    return _read_safetensors(path / WEIGHTS), recipe


def starting_generator(path: Path) -> nn.Module:
    """The averaged generator of a short-run checkpoint, or the one in a folder that `convert-generator` wrote."""
    if path.is_dir():
        return load_generator(path)
    state, recipe = load_trained(path, "energy")
    if not state.get("generator"):
        raise CheckpointError(f"{path} holds no generator; expected a run whose initialiser.kind is 'generator'")
    section = recipe["initialiser"]["network"]
    network = build_network(section["name"], section["arguments"])
    load_weights(network, state["generator"]["average"], str(path))
    return network


class Resized(nn.Module):
    """A generator whose images are resized to `side` pixels, with a triangle filter widened by the scale, as datasets
    are: [B, Z] -> [B, C, side, side]."""

    def __init__(self, generator: nn.Module, side: int) -> None:
        super().__init__()
        self.generator, self.side, self.latent_size = generator, side, generator.latent_size

    def forward(self, z: Tensor) -> Tensor:
        size = (self.side, self.side)
        return functional.interpolate(self.generator(z), size, mode="bilinear", align_corners=False, antialias=True)


def frozen(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, in evaluation mode and without gradients."""
    moved: nn.Module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved.eval().requires_grad_(False)


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of all weights and buffers, by which a resumed run knows its parts again."""
    digest = hashlib.sha256()
    for key, tensor in network.state_dict().items():
        digest.update(key.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _rebuilt(weights: dict[str, torch.Tensor], recipe: dict[str, Any], source: Path) -> nn.Module:
    network = build_network(recipe["network"]["name"], recipe["network"]["arguments"])
    load_weights(network, weights, str(source))
    return network


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
