"""Certifies the purified classifier by randomised smoothing, with the purifier as the denoiser.

The base classifier f(y) is one replicate of the chain from y, classified (argmax); a draw is f(x + noise). Chains
are random themselves. Let h_c(y) be the probability, over the chain's noise alone, that f(y) = c. It is a function into
[0, 1], and the radius of Cohen et al. (arXiv 1902.02918) holds for any such function in place of the indicator of one
class (Salman et al. 2019, arXiv 1906.04584). So the smoothed classifier is the majority over Gaussian noise and chain
noise jointly, and each draw takes both afresh. Nothing is assumed of the energy, the classifier or the chain's
convergence; only that the chain's noise does not depend on the image.

Noised images enter the chain as they are. Clipping them first would be sound too, as a part of f, but it would change
the noise that the chain is there to remove, and chains are clamped nowhere else.

What is certified is this smoothed classifier, not the mean of replicates without Gaussian noise that is served. The
theorem is about real numbers: float32 rounding is not covered (Voracek and Hein 2022, arXiv 2207.07209).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from attacks_eval.threat_model import check_unit_range
from models.certificate import ALPHA, Certificate, certify_counts, largest_radius, successes_needed, top_class
from models.config import Frozen
from models.evaluation.accuracy import Accuracy
from models.streams import Stream

Predict = Callable[[Tensor, Sequence[Stream]], Tensor]
"""One draw of the base classifier each: noised images [N, C, H, W] in [0, 1] units, though noise takes them outside,
and a stream for each chain's noise -> labels, int64 [N]. A label may depend on its own image and stream only."""


class CertifyConfig(Frozen):
    """The smoothing noise (sigma in [0, 1] pixel units), the draws of the two phases, and the error probability."""

    sigma: float = Field(gt=0)
    selection: int = Field(default=100, ge=1)
    estimation: int = Field(default=1000, ge=1)
    alpha: float = Field(default=ALPHA, gt=0, lt=1)

    @property
    def largest_radius(self) -> float:
        """The radius that no image can exceed, sigma * Phi^-1(alpha^(1 / estimation))."""
        return largest_radius(self.estimation, self.sigma, self.alpha)


@dataclass(frozen=True)
class ImageCertificate:
    """A certificate beside the true label.

    Args:
        selection: how often each class was answered in the selection phase.
        drawn: the estimation draws that were made; the others count as failures in the certificate.
    """

    label: int
    certificate: Certificate
    selection: tuple[int, ...]
    drawn: int

    def holds_at(self, radius: float) -> bool:
        """Whether the prediction is right and cannot change within `radius`."""
        return self.certificate.prediction == self.label and self.certificate.radius >= radius

    def as_json(self) -> dict[str, Any]:
        """Label, counts, bound and radius."""
        own = {"label": self.label, "selection": list(self.selection), "drawn": self.drawn}
        return {**own, **self.certificate.as_json()}


def certify_image(
    predict: Predict, image: Tensor, label: int, config: CertifyConfig, stream: Stream, batch: int
) -> ImageCertificate:
    """CERTIFY of Cohen et al. on one image [C, H, W] in [0, 1].

    Estimation ends as soon as too many draws have failed for the bound to exceed 1/2 whatever the others answer. The
    draws that were not made count as failures: there are at most as many successes as in a full run, the bound grows
    with them, and so the certificate is a weaker true statement, an abstention in either case.

    Args:
        stream: of this image; each phase and draw has its own child, so that `batch` (at least 1) changes no result.

    Raises:
        ValueError: an image outside [0, 1], or labels that are not int64 [N].
    """
    check_unit_range(image)
    selected = torch.cat([*_phase(predict, image, config.sigma, stream.child("selection"), config.selection, batch)])
    selection = tuple(selected.bincount().tolist())
    top, allowed = top_class(selection), config.estimation - successes_needed(config.estimation, config.alpha)
    hits = torch.zeros(0, dtype=torch.bool)
    for labels in _phase(predict, image, config.sigma, stream.child("estimation"), config.estimation, batch):
        hits = torch.cat([hits, labels == top])
        hopeless = ((~hits).cumsum(0) > allowed).nonzero()
        if len(hopeless) > 0:
            hits = hits[: int(hopeless[0]) + 1]  # the same draws whatever the batch
            break
    certificate = certify_counts(selection, int(hits.sum()), config.estimation, config.sigma, config.alpha)
    return ImageCertificate(label, certificate, selection, len(hits))


def certified_accuracy(certificates: Sequence[ImageCertificate], radii: Sequence[float]) -> list[Accuracy]:
    """At each L2 radius ([0, 1] pixel units), the images whose prediction is right and certified that far.

    An abstention is not right, at radius 0 either. The interval is over images; that one certificate in 1 / alpha may
    be false is not part of it.

    Raises:
        ValueError: no certificates.
    """
    if not certificates:
        raise ValueError("expected at least 1 certificate, got none")
    return [Accuracy(sum(each.holds_at(radius) for each in certificates), len(certificates)) for radius in radii]


def _phase(predict: Predict, image: Tensor, sigma: float, stream: Stream, count: int, batch: int) -> Iterator[Tensor]:
    """The labels of `count` draws in order, int64 on the CPU, `batch` at a time."""
    for start in range(0, count, batch):
        draws = [stream.child(draw) for draw in range(start, min(start + batch, count))]
        noise = torch.stack([draw.child("gaussian").normal(image.shape) for draw in draws]).to(image)
        labels = predict(image + sigma * noise, [draw.child("chain") for draw in draws])
        if labels.shape != (len(draws),) or labels.dtype != torch.int64:
            raise ValueError(f"expected int64 labels [{len(draws)}], got {labels.dtype} {list(labels.shape)}")
        yield labels.cpu()
