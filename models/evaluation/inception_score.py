"""The Inception Score of Salimans et al. 2016 (arXiv 1606.03498), by whatever classifier a network of features has.

It is the published number only with the official Inception network; by any other its name says which, as in
IS-EffLite0, and scores of different networks do not compare.
"""

import torch
from torch import Tensor

from models.errors import DataError
from models.evaluation.features import FeatureNetwork
from models.evaluation.fidelity import Estimate, Score

SPLITS = 10


def inception_score(logits: Tensor, splits: int = SPLITS) -> Estimate:
    """exp(mean KL(p(y|x), p(y))) of logits [N, K]: 1 where all images look alike, up to K; mean over splits.

    p(y) is a split's own mean, so that few images bring a low score: only scores of one count compare. The standard
    error is that of the mean over the splits.

    Raises:
        DataError: fewer than two images a split.
    """
    if logits.ndim != 2 or len(logits) < 2 * splits:
        raise DataError(f"expected logits [N, K] of at least {2 * splits} images, got shape {tuple(logits.shape)}")
    values = torch.stack([_score(part) for part in logits.double().cpu().tensor_split(splits)])
    error = float(values.std()) / splits**0.5 if splits > 1 else None
    return Estimate(value=float(values.mean()), standard_error=error)


def classifier_score(network: FeatureNetwork, samples: Tensor, held_out: Tensor) -> Score | None:
    """IS-NAME from features [N, D] of samples, and beside it of as many real images; None without a classifier.

    Rows must be in random order. Real images are no floor here: they score higher than samples that lack variety.
    """
    if network.head is None:
        return None
    with torch.no_grad():
        own, real = (inception_score(network.head(each.to(network.device))) for each in (samples, held_out))
    return Score(name=f"IS-{network.name}", count=len(samples), samples=own, floor=real)


def _score(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(1)
    marginal = log_p.logsumexp(0) - torch.log(torch.tensor(float(len(log_p)), dtype=log_p.dtype))
    return (log_p.exp() * (log_p - marginal)).sum(1).mean().exp()
