"""The verdict on one image: sequential testing with fresh noise, and the statistics that a random defence needs.

One draw is not a prediction. Replicates are drawn in stages until the Clopper-Pearson interval of the share of correct
ones leaves 1/2 and the mean logits agree; most images need only the first stage. What the last stage leaves open is
counted as open, and judged by its mean logits.
"""

from collections.abc import Sequence

import torch
from pydantic import Field, field_validator
from torch import Tensor

from attacks_eval.defence import Defence
from attacks_eval.losses import margins
from models.certificate import clopper_pearson
from models.config import Frozen
from models.streams import Stream

ANY_OF = 10


class JudgeConfig(Frozen):
    """Numbers of replicates after which to look, and the error allowed over all looks together.

    Args:
        refuse_below: the defence gives no answer where its largest mean logit is less than this above the next; an
            attacker must then force an answer that is wrong. 0 always answers.
    """

    stages: tuple[int, ...] = (10, 32, 128)
    error: float = Field(default=0.05, gt=0, lt=0.5)
    # Left out of what is written where it is 0: evaluations from before it still resume.
    refuse_below: float = Field(default=0.0, ge=0, exclude_if=lambda value: not value)

    @field_validator("stages")
    @classmethod
    def _ascending(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        if not stages or stages[0] < ANY_OF or list(stages) != sorted(set(stages)):
            raise ValueError(f"expected ascending numbers of replicates, the first at least {ANY_OF}; got {stages}")
        return stages


class Verdict(Frozen):
    """What a defence makes of one image.

    Args:
        draws, correct: replicates drawn, and how many of them were right alone.
        label: the label of the mean logits of all draws.
        margin: true logit minus the best other one, of the mean logits.
        right: whether the mean logits are right, or refused to answer: the verdict that counts.
        decided: whether the interval of the share of correct replicates lies on that side of 1/2.
        vote: whether the most votes of single replicates are for the true label.
        single: share of right answers among the first stage's replicates, which alone are free of the stopping rule.
        served: share of right answers among the first stage's groups of as many replicates as the service averages.
        ten: whether each of the first ten replicates is right alone (an attacker may try again).
        refused: whether the defence gave no answer.
    """

    draws: int
    correct: int
    label: int
    margin: float
    right: bool
    decided: bool
    vote: bool
    single: float
    served: float
    ten: bool
    refused: bool = Field(default=False, exclude_if=lambda value: not value)

    @property
    def broken(self) -> bool:
        """Wrong; also when all stages left it open, for doubt counts against the defence."""
        return not self.right


def judge(
    defence: Defence, images: Tensor, labels: Tensor, streams: Sequence[Stream], config: JudgeConfig
) -> list[Verdict]:
    """One verdict an image [B, C, H, W] in [0, 1]; `streams` must be none that the attack has seen."""
    drawn: list[Tensor] = [torch.empty(0) for _ in streams]
    verdicts: dict[int, Verdict] = {}
    open_rows = list(range(len(images)))
    stages = _stages(defence, config)
    for previous, stage in zip((0, *stages), stages, strict=False):
        if not open_rows:
            break
        chosen = [streams[row] for row in open_rows]
        logits = defence.replicate_logits(images[open_rows], chosen, previous, stage - previous)
        for position, row in enumerate(open_rows):
            drawn[row] = torch.cat([drawn[row].to(logits), logits[:, position]])
            verdicts[row] = _verdict(drawn[row], int(labels[row]), defence, config, stages)
        open_rows = [row for row in open_rows if not verdicts[row].decided]
    return [verdicts[row] for row in range(len(images))]


def _stages(defence: Defence, config: JudgeConfig) -> tuple[int, ...]:
    """A deterministic defence needs one look; a served answer of many replicates needs that many."""
    if defence.deterministic:
        return (defence.served_replicates,)
    return tuple(sorted({max(stage, defence.served_replicates) for stage in config.stages}))


def _verdict(logits: Tensor, label: int, defence: Defence, config: JudgeConfig, stages: Sequence[int]) -> Verdict:
    """The verdict on replicate logits [R, K]."""
    first, alpha = stages[0], config.error / len(stages)
    answers = logits.argmax(1)
    draws, correct = len(logits), int((answers == label).sum())
    mean = logits.mean(0, keepdim=True)
    margin = float(margins(mean, torch.tensor([label], device=mean.device)))
    right = int(mean.argmax()) == label
    best, second = mean.topk(2).values[0].tolist()
    refused = best - second < config.refuse_below
    low, high = clopper_pearson(correct, draws, alpha)
    size = defence.served_replicates
    groups = logits[: first // size * size].unflatten(0, (-1, size)).mean(1).argmax(1)
    return Verdict(
        draws=draws,
        correct=correct,
        label=int(mean.argmax()),
        margin=round(margin, 4),
        right=right or refused,
        refused=refused,
        decided=defence.deterministic or (low > 0.5 if right else high < 0.5),
        vote=int(answers.bincount().argmax()) == label,
        single=float((answers[:first] == label).float().mean()),
        served=float((groups == label).float().mean()),
        ten=bool((answers[:ANY_OF] == label).all()),
    )
