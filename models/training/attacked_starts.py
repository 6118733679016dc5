"""Chains that start from attacked images, so that an energy learns where adversarial perturbations lead.

Mid-run chains start from data and learn to stay there. Started from images that were attacked on a classifier, their
ends are the negatives that a purifier should have moved back to the data: as long as they can be told from it, their
energies rise.
"""

import torch
from torch import Tensor
from torch.nn import functional

from models.banks import Fresh, Source
from models.training.adversarial import Adversarial, attack
from models.training.frozen_parts import trained_classifier
from models.training.sections import Attacked


class AttackedSource:
    """The starts of `source`, each attacked within a budget of its own, uniform up to the section's epsilon.

    The attack leads away from what the classifier says, whose label nobody has to know.
    """

    def __init__(self, source: Source, section: Attacked, generator: torch.Generator) -> None:
        self.source, self.generator = source, generator
        self.network, self.normalisation = trained_classifier(section.classifier, generator.device)
        epsilon, steps = section.epsilon, section.steps
        self.config = Adversarial(
            epsilon=epsilon, start=epsilon, step=2.5 * epsilon / steps, steps=steps, stay_inside=True
        )

    def __call__(self, count: int) -> Fresh:
        fresh = self.source(count)
        budgets = torch.rand(count, 1, 1, 1, generator=self.generator, device=fresh.images.device)
        return fresh._replace(images=self._attacked(fresh.images, budgets))

    def _attacked(self, images: Tensor, budgets: Tensor) -> Tensor:
        """PGD within epsilon, drawn in towards the image: the same direction within a smaller budget."""
        with torch.no_grad():
            labels = self._classify(images).argmax(1)

        def hurt(attacked: Tensor) -> Tensor:
            return functional.cross_entropy(self._classify(attacked), labels, reduction="sum")

        with torch.enable_grad():
            found = attack(hurt, images, self.config.uniform(images, self._own_generator()), self.config)
        return images + budgets * (found - images)

    def _classify(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalisation(images))
        return logits

    def _own_generator(self) -> torch.Generator:
        """On the CPU, and seeded by the chains' own, which a checkpoint keeps."""
        seed = torch.randint(2**62, (1,), generator=self.generator, device=self.generator.device)
        return torch.Generator().manual_seed(int(seed))
