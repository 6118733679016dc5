"""Features of a classifier that was trained here, beside ImageNet's, for images as small as digits.

Neither is enough alone. The classifier tells digits apart and sees their shapes drift, but knows nothing that is not a
digit: patterns of black and white pixels, where chains of a short-run energy end, get a high precision from it.
EfficientNet-Lite0 sees those at once, and hardly notices the drift.
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


class _Head(nn.Module):
    """What the head reads to logits."""

    def __init__(self, network: CompactResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.network.head(features) * self.network.logit_scale
        return logits


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
    head = frozen(_Head(network), device)
    return FeatureNetwork(f"{recipe.data.name}-{digest[:8]}", identity, module, device, head)
