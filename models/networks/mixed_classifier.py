"""Two classifiers in one: an accurate one that is easily fooled, and a robust one that overrules it when it is sure."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.networks.classifier import CompactResNet


class MixedClassifier(nn.Module):
    """log(w softmax(s r(x)) + (1 - w) softmax(a(x))): normalised images [B, C, H, W] to log probabilities [B, classes].

    r is robust, a accurate. Whatever an attacker makes a say, the answer is r's wherever its probabilities, sharpened
    by s, are more than (1 - w) / w apart; elsewhere a decides, which is right more often when nobody attacks. After
    Bai et al. (2023), "Improving the accuracy-robustness trade-off of classifiers via adaptive smoothing"; that s > 1
    pays is from Bai et al. (2024), "MixedNUTS".

    Args:
        robust, accurate: arguments of each one's CompactResNet.
        robust_weight: w; above 1/2, or the robust one could never overrule.
        sharpness: s, of the robust logits.
    """

    def __init__(
        self, robust: Mapping[str, Any], accurate: Mapping[str, Any], robust_weight: float, sharpness: float
    ) -> None:
        super().__init__()
        if not 0.5 < robust_weight < 1.0:
            raise ValueError(f"robust_weight must be between 1/2 and 1, got {robust_weight}")
        if sharpness <= 0.0:
            raise ValueError(f"sharpness must be above 0, got {sharpness}")
        self.robust, self.accurate = CompactResNet(**robust), CompactResNet(**accurate)
        self.robust_weight, self.sharpness = robust_weight, sharpness

    def forward(self, x: Tensor) -> Tensor:
        return mixture(self.robust(x), self.accurate(x), self.robust_weight, self.sharpness)


def overrules(robust: Tensor, labels: Tensor, robust_weight: float, sharpness: float) -> Tensor:
    """bool [B]: where robust logits [B, classes] answer `labels` in the mixture, whatever the accurate one says."""
    probabilities = (sharpness * robust).softmax(1)
    own = probabilities.gather(1, labels[:, None]).squeeze(1)
    others = probabilities.scatter(1, labels[:, None], -torch.inf).amax(1)
    return own - others > (1.0 - robust_weight) / robust_weight


def mixture(robust: Tensor, accurate: Tensor, robust_weight: float, sharpness: float) -> Tensor:
    """Log probabilities [B, classes] of the mixture, from both logits.

    Sums of logarithms: probabilities that round to 0 still have a slope, and an attacker follows it.
    """
    return torch.logaddexp(
        (sharpness * robust).log_softmax(1) + math.log(robust_weight),
        accurate.log_softmax(1) + math.log(1.0 - robust_weight),
    )
