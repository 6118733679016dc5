"""One search under way: its task, what it was answered and judged, and what it comes to."""

from dataclasses import dataclass, field
from math import ceil, inf
from statistics import fmean

import torch
from torch import Tensor

from attacks_eval.attack import Aimed, Answer, Search
from attacks_eval.judge import Verdict
from attacks_eval.losses import UNAIMED
from models.config import Frozen
from models.streams import Stream


@dataclass(frozen=True)
class Task:
    """One image to attack or to judge: its number in the dataset, pixels [C, H, W] in [0, 1], and true label.

    `made_by` names the attack that made the pixels; it is empty for a clean image.
    """

    number: int
    image: Tensor
    label: int
    made_by: str = ""


class Outcome(Frozen):
    """What a search came to.

    Args:
        verdict: of the image that broke the defence, or else the worst for it of those that were judged.
        broken_at: the question (from 1) whose candidate broke the defence; None for a survivor, and for an image that
            was made elsewhere.
        queries: questions asked.
        tries: candidates that were judged.
        early_loss, late_loss: means of the attack's loss over the first fifth of its first climb and the last fifth of
            its last, on the attack's own noise; None for an image that was made elsewhere.
        zero_gradients: answers whose gradient was zero or not finite.
    """

    verdict: Verdict
    broken_at: int | None
    queries: int
    tries: int
    early_loss: float | None
    late_loss: float | None
    zero_gradients: int

    @property
    def broken(self) -> bool:
        """Whether the kept image is answered wrongly."""
        return self.verdict.broken


@dataclass
class Slot:
    """One search under way: the candidate that it asks about, and the worst for the defence of those judged."""

    task: Task
    search: Search
    stream: Stream
    candidate: Tensor = field(default_factory=lambda: torch.empty(0))
    target: int = UNAIMED
    asked: Tensor = field(default_factory=lambda: torch.empty(0))
    margin: float = inf
    queries: int = 0
    best: Tensor = field(default_factory=lambda: torch.empty(0))
    best_margin: float = inf
    best_query: int = 0
    losses: list[float] = field(default_factory=list)
    zero_gradients: int = 0
    tries: int = 0
    judged_margin: float = inf
    next_try: int = 0
    judged_query: int = 0
    kept: Tensor = field(default_factory=lambda: torch.empty(0))
    verdict: Verdict | None = None
    broken_at: int | None = None

    def ask(self, question: Tensor | Aimed) -> None:
        """What the search asks next."""
        self.candidate, self.target = question if isinstance(question, Aimed) else (question, UNAIMED)

    def take(self, answer: Answer, margin: float) -> None:
        """Count an answer to the candidate."""
        self.queries, self.asked, self.margin = self.queries + 1, self.candidate, margin
        self.losses.append(answer.loss)
        if answer.gradient is not None and not bool((answer.gradient.isfinite() & (answer.gradient != 0)).any()):
            self.zero_gradients += 1
        if margin < self.best_margin:
            self.best, self.best_margin, self.best_query = self.candidate, margin, self.queries

    @property
    def broken(self) -> bool:
        """Whether a judged candidate broke the defence."""
        return self.verdict is not None and self.verdict.broken

    @property
    def promising(self) -> bool:
        """Whether the last candidate is answered wrongly and worth a judge's time."""
        return self.margin < 0 and (self.margin < self.judged_margin or self.queries >= self.next_try)

    def settle(self, image: Tensor, query: int, margin: float, verdict: Verdict) -> None:
        """Keep a judged image if it is the worst so far, and wait twice as long as before to ask again."""
        self.tries, self.judged_query = self.tries + 1, query
        self.next_try = self.queries + 2**self.tries
        self.judged_margin = min(self.judged_margin, margin)
        if self.verdict is None or _badness(verdict) < _badness(self.verdict):
            self.kept, self.verdict = image, verdict
            self.broken_at = query if verdict.broken else None

    def outcome(self, climbs: int) -> Outcome:
        """What the ended search came to; its losses are those of so many climbs."""
        if self.verdict is None:
            raise ValueError(f"image {self.task.number} ended without a verdict")
        fifth = ceil(len(self.losses) / climbs / 5)
        return Outcome(
            verdict=self.verdict,
            broken_at=self.broken_at,
            queries=self.queries,
            tries=self.tries,
            early_loss=_rounded(fmean(self.losses[:fifth])),
            late_loss=_rounded(fmean(self.losses[-fifth:])),
            zero_gradients=self.zero_gradients,
        )


def _rounded(loss: float) -> float:
    """Six digits: a confident classifier's cross-entropy grows long before it shows in the fifth decimal."""
    return float(f"{loss:.6g}")


def _badness(verdict: Verdict) -> tuple[bool, bool, float]:
    """Sorts verdicts: wrong ones first, decided before open ones, then by the mean logits' margin."""
    return verdict.right, not verdict.decided, verdict.margin
