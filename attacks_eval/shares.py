"""Counts with intervals, as results hold them."""

from collections.abc import Collection

from attacks_eval.evaluation import Share, Statistics
from attacks_eval.judge import Verdict
from models.evaluation.accuracy import Accuracy


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
