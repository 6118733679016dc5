"""What a classifier's update descends: the loss of augmented images, attacked or not, behind a purifier or not."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.bundle import load_bundle
from models.data import ImageDataset
from models.langevin import LangevinConfig, run_langevin
from models.noise import SeededNoise
from models.pixels import Normalisation, from_uint8
from models.precision import Precision, autocast
from models.training.adversarial import Adversarial, adversarial_loss, count_holding
from models.training.joint_density import JointDensity

WATCHED = 250
"""Images that a classifier which learns from attacked ones is attacked on after each epoch."""


class Purifying(LangevinConfig):
    """The chain that every image takes before the classifier learns from it; `bundle` is the folder of its energy."""

    bundle: Path


class StraightThrough:
    """Chains of a frozen energy whose backward pass is the identity, as BPDA's is: attacks in learning see them so."""

    def __init__(self, config: Purifying, generator: torch.Generator, device: torch.device) -> None:
        self.energy = load_bundle(config.bundle, device).defence.energy
        self.config, self.noise = config, SeededNoise(generator)

    def __call__(self, images: Tensor) -> Tensor:
        purified = run_langevin(self.energy, images.detach(), self.config, randn_like=self.noise)[0]
        return images + (purified - images).detach()


@dataclass(frozen=True)
class ClassifierObjective:
    """How logits are made of images in [-1, 1], and what is minimised.

    Args:
        generator: on the CPU; of the noise that attacks start from.
    """

    normalisation: Normalisation
    label_smoothing: float
    precision: Precision
    adversarial: Adversarial | None
    purifier: StraightThrough | None
    density: JointDensity | None
    generator: torch.Generator
    device: torch.device

    def classify(self, network: nn.Module, images: Tensor) -> Tensor:
        """Logits [B, K], in float32."""
        with autocast(self.device, self.precision):
            logits: Tensor = network(self.normalisation(images if self.purifier is None else self.purifier(images)))
        return logits.float()

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Of augmented images [B, C, H, W] and labels [B], from the CPU."""
        images = images.to(self.device, memory_format=torch.channels_last)
        labels = labels.to(self.device)

        def classify(x: Tensor) -> Tensor:
            return self.classify(network, x)

        attacked = None
        if self.adversarial is None:
            loss = functional.cross_entropy(classify(images), labels, label_smoothing=self.label_smoothing)
        else:
            loss, attacked = adversarial_loss(
                classify,
                list(network.parameters()),
                images,
                labels,
                self.adversarial,
                self.generator,
                self.label_smoothing,
            )
        return loss if self.density is None else loss + self.density.loss(network, images, attacked)

    def held(self, network: nn.Module, monitored: ImageDataset) -> float:
        """The share of the first images that keep their label under PGD-10 on the network, without the purifier."""
        assert self.adversarial is not None
        images = from_uint8(monitored.images[:WATCHED]).to(self.device, memory_format=torch.channels_last)
        labels = monitored.labels[:WATCHED].to(self.device)

        alone = replace(self, purifier=None)

        def classify(x: Tensor) -> Tensor:
            return alone.classify(network, x)

        generator = torch.Generator().manual_seed(0)
        return count_holding(classify, images, labels, self.adversarial.epsilon, generator) / len(images)
