"""Architectures, built by name from the constructor arguments that a bundle's manifest or a recipe holds."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from models.errors import NetworkError
from models.networks.biggan_energy import BigGANEnergy
from models.networks.classifier import CompactResNet
from models.networks.energy import LightEnergy, SNGANEnergy32, SNGANEnergy64, SNGANEnergy128
from models.networks.generator import SNGANGenerator, SNGANGenerator32, SNGANGenerator64, SNGANGenerator128
from models.networks.mixed_classifier import MixedClassifier
from models.networks.residual_energy import ResidualEnergy
from models.networks.vector_energy import VectorEnergy

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "light": LightEnergy,
    "sngan32": SNGANEnergy32,
    "sngan64": SNGANEnergy64,
    "sngan128": SNGANEnergy128,
    "biggan": BigGANEnergy,
    "residual": ResidualEnergy,
    "vector": VectorEnergy,
    "sngan_generator": SNGANGenerator,
    "sngan_generator32": SNGANGenerator32,
    "sngan_generator64": SNGANGenerator64,
    "sngan_generator128": SNGANGenerator128,
    "compact_resnet": CompactResNet,
    "mixed_classifier": MixedClassifier,
}


def build_network(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A freshly initialised network; raises NetworkError that names what is unknown or refused."""
    if name not in ARCHITECTURES:
        raise NetworkError(f"unknown architecture {name!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    try:
        return ARCHITECTURES[name](**arguments)
    except (TypeError, ValueError) as error:
        raise NetworkError(f"architecture {name!r} with arguments {dict(arguments)}: {error}") from error


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load strictly; raises NetworkError that names missing, unexpected and misshapen tensors and their source."""
    own = network.state_dict()
    problems = [f"missing {key}" for key in own.keys() - weights.keys()]
    problems += [f"unexpected {key}" for key in weights.keys() - own.keys()]
    problems += [
        f"{key} has shape {list(weights[key].shape)}, expected {list(own[key].shape)}"
        for key in own.keys() & weights.keys()
        if weights[key].shape != own[key].shape
    ]
    if problems:
        raise NetworkError(f"{source} does not fit {type(network).__name__}: {'; '.join(sorted(problems))}")
    network.load_state_dict(dict(weights))
