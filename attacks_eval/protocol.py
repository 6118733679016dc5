"""Runs an attack's searches side by side: batches their questions, judges their candidates, refills freed places.

A candidate is chosen on the attack's own noise and judged on fresh noise. A judge that is asked at every step errs some
day, and one that is asked once may have been shown a lucky draw: so a search asks when its candidate looks worse for
the defence than any judged before, or when twice as many questions have passed as the last time; and at its end about
its best candidate and its last.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from statistics import fmean

import torch
from torch import Tensor

from attacks_eval.attack import Answer, Attack, Search
from attacks_eval.defence import Defence
from attacks_eval.judge import JudgeConfig, Verdict, judge
from attacks_eval.losses import attack_loss, margins
from attacks_eval.threat_model import ThreatModel, check_unit_range
from models.config import Frozen
from models.purifier import CHAINS_PER_BATCH
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
class _Slot:
    """One search under way: the candidate that it asks about, and the worst for the defence of those judged."""

    task: Task
    search: Search
    stream: Stream
    candidate: Tensor
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

    def outcome(self, restarts: int) -> Outcome:
        """What the ended search came to; its losses are those of `restarts` climbs."""
        if self.verdict is None:
            raise ValueError(f"image {self.task.number} ended without a verdict")
        fifth = ceil(len(self.losses) / restarts / 5)
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


Record = Callable[[Task, Outcome, Tensor], None]
Advance = Callable[[int], None]


def run_attack(
    defence: Defence,
    attack: Attack,
    tasks: Sequence[Task],
    threat: ThreatModel,
    stream: Stream,
    judging: JudgeConfig,
    record: Record,
    advance: Advance = lambda queries: None,
) -> None:
    """Attack every task; `record` is told of each as it ends, with its adversarial image [C, H, W].

    A survivor's image is the worst for the defence of those judged, and its verdict is of that.

    Args:
        advance: told how many of the attack's `queries` each answer, or each early end, accounts for.
    """
    waiting, active = deque(tasks), list[_Slot]()
    while waiting or active:
        while waiting and len(active) < places(attack):
            active.append(_start(waiting.popleft(), attack, threat, stream))
        answers = _ask(defence, attack, active)
        advance(len(active))
        _judge(defence, [slot for slot in active if slot.promising], judging, last=True)
        going, ended = _continue(active, answers)
        _judge(defence, [slot for slot in ended if slot.best_margin < slot.judged_margin], judging, last=False)
        left = [slot for slot in ended if not slot.broken and slot.judged_query != slot.queries]
        _judge(defence, left, judging, last=True)
        for slot in ended:
            advance(attack.queries - slot.queries)
            record(slot.task, slot.outcome(attack.restarts), slot.kept)
        active = going


def craft(
    source: Defence,
    attack: Attack,
    tasks: Iterable[Task],
    threat: ThreatModel,
    stream: Stream,
    advance: Advance = lambda queries: None,
) -> list[tuple[Task, Tensor]]:
    """Search to the end without a judge; each task's candidate of the greatest loss, to be tried on another defence."""
    waiting, active = deque(tasks), list[_Slot]()
    crafted: dict[int, tuple[Task, Tensor]] = {}
    top: dict[int, float] = {}
    while waiting or active:
        while waiting and len(active) < places(attack):
            active.append(_start(waiting.popleft(), attack, threat, stream))
        asked = [slot.candidate for slot in active]
        answers = _ask(source, attack, active)
        advance(len(active))
        for slot, candidate, answer in zip(active, asked, answers, strict=True):
            number = slot.task.number
            if answer.loss > top.get(number, -inf):
                top[number], crafted[number] = answer.loss, (slot.task, candidate)
        active, _ = _continue(active, answers)
    return [crafted[number] for number in sorted(crafted)]


def places(attack: Attack) -> int:
    """How many searches go on at once: as many as fill a batch with their replicates."""
    return max(1, CHAINS_PER_BATCH // attack.eot)


def _start(task: Task, attack: Attack, threat: ThreatModel, stream: Stream) -> _Slot:
    check_unit_range(task.image)
    own = stream.child(task.number)
    search = attack.search(task.image, task.label, threat, own.child("search"))
    return _Slot(task, search, own, next(search))


def _ask(defence: Defence, attack: Attack, slots: Sequence[_Slot]) -> list[Answer]:
    """The defence's answers to the slots' candidates, counted in the slots."""
    images = torch.stack([slot.candidate for slot in slots])
    labels = torch.tensor([slot.task.label for slot in slots], device=images.device)
    streams = [slot.stream.child("query", slot.queries) for slot in slots]
    gradients: Sequence[Tensor | None] = [None] * len(slots)
    if attack.grad is None:
        logits = defence.replicate_logits(images, streams, 0, attack.eot).mean(0)
        losses = attack_loss(attack.loss, logits, labels)
    else:
        logits, losses, found = defence.attack_gradient(images, labels, streams, attack.eot, attack.grad, attack.loss)
        gradients = list(found)
    answers = [Answer(*parts) for parts in zip(logits, losses.tolist(), gradients, strict=True)]
    for slot, answer, margin in zip(slots, answers, margins(logits, labels).tolist(), strict=True):
        slot.take(answer, margin)
    return answers


def _judge(defence: Defence, slots: Sequence[_Slot], judging: JudgeConfig, last: bool) -> None:
    """Judge each slot's last candidate, or its best one, on noise that its search has not seen."""
    if not slots:
        return
    images = torch.stack([slot.asked if last else slot.best for slot in slots])
    labels = torch.tensor([slot.task.label for slot in slots], device=images.device)
    streams = [slot.stream.child("judge", slot.tries) for slot in slots]
    for slot, image, verdict in zip(slots, images, judge(defence, images, labels, streams, judging), strict=True):
        query, margin = (slot.queries, slot.margin) if last else (slot.best_query, slot.best_margin)
        slot.settle(image, query, margin, verdict)


def _continue(active: Sequence[_Slot], answers: Sequence[Answer]) -> tuple[list[_Slot], list[_Slot]]:
    """Send the answers on; (the searches that go on, those that ended or whose image is broken)."""
    going, ended = [], []
    for slot, answer in zip(active, answers, strict=True):
        try:
            if slot.broken:
                slot.search.close()
                ended.append(slot)
            else:
                slot.candidate = slot.search.send(answer)
                going.append(slot)
        except StopIteration:
            ended.append(slot)
    return going, ended
