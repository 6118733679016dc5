"""The energy that a classifier has within it."""

from torch import Tensor, nn

from models.pixels import Normalisation


class JointEnergy(nn.Module):
    """f(x) = -log sum_y exp(logit_y(x)): [B, C, H, W] in [-1, 1] -> [B].

    A classifier's logits define the joint density exp(logit_y(x)) / Z of images and labels; this is what is left when
    the label is summed out (Grathwohl et al. 2020, "Your classifier is secretly an energy based model", JEM).
    """

    def __init__(self, classifier: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.classifier, self.normalisation = classifier, normalisation

    def forward(self, x: Tensor) -> Tensor:
        energy: Tensor = -self.classifier(self.normalisation(x)).float().logsumexp(1)
        return energy
