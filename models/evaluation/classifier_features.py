"""Features of a classifier that was trained here, for images on which ImageNet's features say little.

ImageNet networks see an 8-pixel digit as a blur. What a small classifier of digits has learned to tell apart is closer
to what matters there; but it knows its ten classes and nothing of what is not a digit, so that both are worth asking.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from models.errors import CheckpointError
from models.evaluation.features import FeatureNetwork
from models.networks import build_network, load_weights
from models.networks.classifier import CompactResNet
from models.pixels import LEVELS, Normalisation, from_unit
from models.training.frozen_parts import frozen, weights_digest
from models.training.recipe import ClassifierRecipe
from models.training.run import load_trained


class _Penultimate(nn.Module):
    """Pixels [B, 3, H, W] in [0, 255], of equal channels where the classifier reads one, to what its head reads."""

    def __init__(self, network: CompactResNet, normalisation: Normalisation, channels: int) -> None:
        super().__init__()
        self.network, self._normalisation, self._channels = network, normalisation, channels

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network.features(self._normalisation(from_unit(pixels[:, : self._channels] / LEVELS)))


def load_classifier_features(checkpoint: Path, device: torch.device) -> FeatureNetwork:
    """The averaged weights of a classifier run; named after its data and weights, as in `digits-0123abcd`.

    Raises:
        CheckpointError: not a classifier's checkpoint, or one of another architecture than `compact_resnet`.
    """
    state, table = load_trained(checkpoint, "classifier")
    recipe = ClassifierRecipe.model_validate(table)
    network = build_network(recipe.network.name, recipe.network.arguments)
    if not isinstance(network, CompactResNet):
        raise CheckpointError(f"{checkpoint} holds a {recipe.network.name}, expected a compact_resnet")
    load_weights(network, state["average"], str(checkpoint))
    digest = weights_digest(network)
    (stem, *_) = network.stem
    assert isinstance(stem, nn.Conv2d)
    module = frozen(_Penultimate(network, recipe.normalisation, stem.in_channels), device)
    identity = f"last features of a classifier of {recipe.data.name}, {recipe.network.arguments}, weights {digest}"
    return FeatureNetwork(f"{recipe.data.name}-{digest[:8]}", identity, module, device)
