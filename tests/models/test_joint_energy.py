"""The energy within a classifier."""

import torch
from torch import nn

from models.networks.joint_energy import JointEnergy
from models.pixels import Normalisation


def test_it_is_the_joint_density_with_its_labels_summed_out() -> None:
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images = torch.rand(5, 3, 2, 2) * 2 - 1
    energy = JointEnergy(classifier, Normalisation(mean=(0.5,), std=(0.25,)))
    logits = classifier(images * 2.0)  # ((x + 1) / 2 - 0.5) / 0.25
    torch.testing.assert_close(torch.exp(-energy(images)), logits.exp().sum(1))
