"""The defence: purify an image with Langevin dynamics, then classify it.

The service, the adversary and the command line all hold this one object, so that what is measured is what is served.
"""

from collections.abc import Iterator

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from models.langevin import Callback, LangevinConfig, run_langevin
from models.noise import UNSEEDED, Noise
from models.pixels import Normalisation


class Preset(LangevinConfig):
    """How a request is answered: the chain, and how many replicates of it are averaged."""

    replicates: int = Field(ge=1)

    @model_validator(mode="after")
    def _chains_are_free(self) -> "Preset":
        if self.gradient_clamp is not None or self.box is not None:
            raise ValueError(
                "the chains of a defence are not clamped, got "
                f"gradient_clamp {self.gradient_clamp} and box {self.box}: those belong to a training's sampler"
            )
        return self


# The fastest size on CPU cores: larger batches leave the cache.
CHAINS_PER_BATCH = 64


def replicate(x: Tensor, replicates: int) -> Tensor:
    """[B, ...] to [R * B, ...], replicate-major: every image once, then every image again."""
    return x.repeat(replicates, *(1,) * (x.dim() - 1))


def split_replicates(values: Tensor, replicates: int) -> Tensor:
    """[R * B, ...] back to [R, B, ...]."""
    return values.reshape(replicates, -1, *values.shape[1:])


def chain_batches(x: Tensor, replicates: int) -> Iterator[Tensor]:
    """The chains of `replicate(x, replicates)`, in its order, at most CHAINS_PER_BATCH at a time."""
    for rows in torch.arange(replicates * len(x), device=x.device).split(CHAINS_PER_BATCH):
        yield x[rows % len(x)]


class PurifiedClassifier(nn.Module):
    """forward(x) = the mean over replicates of classify(purify(x)); images are [B, C, H, W] in [-1, 1].

    Args:
        energy: image to scalar, [B, C, H, W] -> [B].
        classifier: normalised image to logits, [B, C, S, S] -> [B, K].
        normalisation: what the classifier reads.
        preset: how `forward` purifies when it is not told otherwise.
        classifier_size: (height, width) that the classifier reads, when it is not the image's own.
    """

    def __init__(
        self,
        energy: nn.Module,
        classifier: nn.Module,
        normalisation: Normalisation,
        preset: Preset,
        classifier_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.energy = energy.eval().requires_grad_(False)
        self.classifier = classifier.eval().requires_grad_(False)
        self.normalisation, self.preset, self.classifier_size = normalisation, preset, classifier_size

    def purify(
        self,
        x: Tensor,
        sampler: LangevinConfig | None = None,
        randn_like: Noise = UNSEEDED,
        callback: Callback | None = None,
    ) -> Tensor:
        """One chain from each image of the batch; the result is not clamped and carries no gradient."""
        return run_langevin(self.energy, x, sampler or self.preset, randn_like=randn_like, callback=callback)[0]

    def classify(self, x: Tensor) -> Tensor:
        """Logits [B, K] of the bare classifier, in float32."""
        if self.classifier_size is not None and tuple(x.shape[2:]) != self.classifier_size:
            x = functional.interpolate(x, self.classifier_size, mode="bilinear", antialias=True)
        logits: Tensor = self.classifier(self.normalisation(x))
        return logits

    def replicate_logits(
        self,
        x: Tensor,
        preset: Preset | None = None,
        randn_like: Noise = UNSEEDED,
        callback: Callback | None = None,
    ) -> Tensor:
        """Logits of each replicate, [R, B, K]; chains run in batches that stay in the cache."""
        preset = preset or self.preset
        batches = chain_batches(x, preset.replicates)
        logits = [self.classify(self.purify(batch, preset, randn_like, callback)) for batch in batches]
        return split_replicates(torch.cat(logits), preset.replicates)

    def forward(self, x: Tensor, preset: Preset | None = None, randn_like: Noise = UNSEEDED) -> Tensor:
        """Mean logits over the replicates, [B, K]."""
        return self.replicate_logits(x, preset, randn_like).mean(0)


def agreement(replicate_logits: Tensor) -> Tensor:
    """[R, B, K] -> [B]: the share of replicates that vote for the label of the mean logits."""
    label = replicate_logits.mean(0).argmax(-1)
    return (replicate_logits.argmax(-1) == label).float().mean(0)
