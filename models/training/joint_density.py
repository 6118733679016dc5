"""The density of images within a classifier, learned beside its labels.

The energy is the classifier's own, f(x) = -logsumexp of its logits (`models.networks.joint_energy`): Grathwohl et al.
(2020), "Your classifier is secretly an energy based model and you should treat it like one" (JEM, arXiv 1912.03263).
Chains live as in mid-run learning of EBM Life Cycle (arXiv 2205.12243): they start from images, and persist.
Batch norm's statistics stand still meanwhile, so that labels and chains are learned by one and the same function: begin
from a classifier that has learned before. With statistics of each batch for labels, and the running ones for chains,
the two drift apart and the classifier is lost within a hundred updates. Yin et al. (2025), "Joint
discriminative-generative modeling via dual adversarial training" (arXiv 2510.13872), learn in two stages for it.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.banks import Fresh, PersistentBank
from models.data import ImageDataset
from models.langevin import LangevinConfig, run_langevin
from models.networks.joint_energy import JointEnergy
from models.noise import SeededNoise
from models.pixels import Normalisation, from_uint8
from models.precision import autocast
from models.training.adversarial import frozen
from models.training.initialisers import PersistentChains


class Joint(LangevinConfig):
    """The chains' steps, and weight * (mean f(positives) - mean f(chains)) + penalty * (their mean f^2 + its).

    Args:
        penalty: keeps energies small; without it they drift, for a classifier's loss does not see their level.
        positives: `clean` images, or `both` them and the attacked ones that the classifier learns from: the energies
            of clean, attacked and sampled images are then brought together, as in energy-based joint distribution
            adversarial training (EB-JDAT, arXiv 2505.19459).
        batch_size: chains that an update moves, and at most so many positives of each sort.
        data_noise: standard deviation in [-1, 1] pixel units, added to clean positives and to chains' starts.
    """

    weight: float = Field(default=1.0, gt=0)
    penalty: float = Field(default=0.01, ge=0)
    positives: Literal["clean", "both"] = "clean"
    batch_size: int = Field(default=64, ge=1)
    bank_size: int = Field(default=5_000, ge=1)
    rejuvenation_prob: float = Field(default=0.05, ge=0, le=1)
    data_noise: float = Field(default=0.03, ge=0)


class JointDensity:
    """The term of a classifier's objective, and its bank of chains.

    Args:
        generator: on the network's device, of everything that is drawn here.
    """

    def __init__(
        self, config: Joint, train: ImageDataset, normalisation: Normalisation, generator: torch.Generator
    ) -> None:
        self.config, self._normalisation, self._generator = config, normalisation, generator
        self._noise, self._images = SeededNoise(generator), train.images
        self._chains = self._of(PersistentBank.filled(self._starts, config.bank_size, torch.float32))

    def loss(self, network: nn.Module, clean: Tensor, attacked: Tensor | None = None) -> Tensor:
        """Of images [B, C, H, W] in [-1, 1]; the network is in evaluation mode, as where its energy is used."""
        config, energy = self.config, JointEnergy(network, self._normalisation)
        with frozen(list(network.parameters())):
            chains = self._chains.start(0)
            ends, _ = run_langevin(energy, chains.starts.images, config, randn_like=self._noise)
            negatives = self._chains.finish(chains, ends)[0].images
        positives = self._noisy(clean[: config.batch_size])
        if config.positives == "both" and attacked is not None:
            positives = torch.cat([positives, attacked[: config.batch_size]])
        with autocast(positives.device, config.precision):
            energies = energy(torch.cat([positives, negatives])).float()
        low, high = energies.split([len(positives), len(negatives)])
        size = low.square().mean() + high.square().mean()
        loss: Tensor = config.weight * (low.mean() - high.mean()) + config.penalty * size
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The bank, for a checkpoint."""
        return self._chains.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._chains = self._of(PersistentBank.restored(state, self._generator.device, torch.float32))

    def _of(self, bank: PersistentBank) -> PersistentChains:
        config = self.config
        restarts = ((0, config.rejuvenation_prob),)
        return PersistentChains(bank, self._starts, config.batch_size, restarts, 0, self._generator)

    def _starts(self, count: int) -> Fresh:
        device = self._generator.device
        rows = torch.randint(len(self._images), (count,), generator=self._generator, device=device).cpu()
        return Fresh(self._noisy(from_uint8(self._images[rows]).to(device)))

    def _noisy(self, images: Tensor) -> Tensor:
        return images + self.config.data_noise * self._noise(images)
