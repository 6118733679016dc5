"""Counts with intervals, as results hold them."""

from collections.abc import Collection

from attacks_eval.judge import Verdict
from models.config import Frozen
from models.evaluation.accuracy import Accuracy


class Share(Frozen):
    """`correct` of `total` images, with its Wilson 95 % interval."""

    correct: int
    total: int
    accuracy: float
    low: float
    high: float


class Statistics(Frozen):
    """One set of verdicts under several rules; each has its clean twin in the clean row.

    Args:
        mean_logit: images whose mean logits over all draws are right: the verdict that counts.
        vote: images whose most voted label is right.
        ten: images that are right in each of ten single draws.
        single: expected accuracy of one draw, as a share of the images.
        served: expected accuracy of one served answer (the preset's replicates averaged), as a share of the images.
        undecided: images whose interval still held 1/2 after the last stage.
    """

    mean_logit: Share
    vote: Share
    ten: Share
    single: float
    served: float
    undecided: int


def share(correct: int, total: int) -> Share:
    """`correct` of `total` images, with the Wilson interval."""
    return Share.model_validate(Accuracy(correct, total).as_json())


def statistics_of(verdicts: Collection[Verdict], total: int) -> Statistics:
    """The verdicts under each rule, over `total` images: those without a verdict here count as wrong."""
    return Statistics(
        mean_logit=share(sum(v.right for v in verdicts), total),
        vote=share(sum(v.vote for v in verdicts), total),
        ten=share(sum(v.ten for v in verdicts), total),
        single=round(sum(v.single for v in verdicts) / total, 5),
        served=round(sum(v.served for v in verdicts) / total, 5),
        undecided=sum(not v.decided for v in verdicts),
    )
