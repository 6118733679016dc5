"""Runs an attack's searches side by side: batches their questions, judges their candidates, refills freed places.

A candidate is chosen on the attack's own noise and judged on fresh noise. A judge that is asked at every step errs some
day, and one that is asked once may have been shown a lucky draw: so a search asks when its candidate looks worse for
the defence than any judged before, or when twice as many questions have passed as the last time; and at its end about
its best candidate and its last.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf

import torch
from torch import Tensor

from attacks_eval.attack import Answer, Attack
from attacks_eval.defence import Defence
from attacks_eval.judge import JudgeConfig, judge
from attacks_eval.losses import attack_loss, margins
from attacks_eval.slots import Outcome, Slot, Task
from attacks_eval.threat_model import ThreatModel, check_unit_range
from models.purifier import CHAINS_PER_BATCH
from models.streams import Stream

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

    Args:
        advance: told how many of the attack's `queries` each answer, or each early end, accounts for.
    """
    for task, outcome, image in attacked(defence, attack, tasks, threat, stream, judging, advance):
        record(task, outcome, image)


def attacked(
    defence: Defence,
    attack: Attack,
    tasks: Sequence[Task],
    threat: ThreatModel,
    stream: Stream,
    judging: JudgeConfig,
    advance: Advance = lambda queries: None,
) -> Iterator[tuple[Task, Outcome, Tensor]]:
    """Each task as its search ends, and its adversarial image; the others' wait while the caller is busy with it.

    A survivor's image is the worst for the defence of those judged, and its verdict is of that.
    """
    waiting, active = deque(tasks), list[Slot]()
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
            yield slot.task, slot.outcome(attack.climbs), slot.kept
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
    waiting, active = deque(tasks), list[Slot]()
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


def _start(task: Task, attack: Attack, threat: ThreatModel, stream: Stream) -> Slot:
    check_unit_range(task.image)
    own = stream.child(task.number)
    search = attack.search(task.image, task.label, threat, own.child("search"))
    slot = Slot(task, search, own)
    slot.ask(next(search))
    return slot


def _ask(defence: Defence, attack: Attack, slots: Sequence[Slot]) -> list[Answer]:
    """The defence's answers to the slots' candidates, counted in the slots."""
    images = torch.stack([slot.candidate for slot in slots])
    labels = torch.tensor([slot.task.label for slot in slots], device=images.device)
    targets = torch.tensor([slot.target for slot in slots], device=images.device)
    streams = [slot.stream.child("query", slot.queries) for slot in slots]
    gradients: Sequence[Tensor | None] = [None] * len(slots)
    if attack.grad is None:
        logits = defence.replicate_logits(images, streams, 0, attack.eot).mean(0)
        losses = attack_loss(attack.loss, logits, labels, targets)
    else:
        how = (attack.eot, attack.grad, attack.loss)
        logits, losses, found = defence.attack_gradient(images, labels, streams, *how, targets)
        gradients = list(found)
    answers = [Answer(*parts) for parts in zip(logits, losses.tolist(), gradients, strict=True)]
    for slot, answer, margin in zip(slots, answers, margins(logits, labels).tolist(), strict=True):
        slot.take(answer, margin)
    return answers


def _judge(defence: Defence, slots: Sequence[Slot], judging: JudgeConfig, last: bool) -> None:
    """Judge each slot's last candidate, or its best one, on noise that its search has not seen."""
    if not slots:
        return
    images = torch.stack([slot.asked if last else slot.best for slot in slots])
    labels = torch.tensor([slot.task.label for slot in slots], device=images.device)
    streams = [slot.stream.child("judge", slot.tries) for slot in slots]
    for slot, image, verdict in zip(slots, images, judge(defence, images, labels, streams, judging), strict=True):
        query, margin = (slot.queries, slot.margin) if last else (slot.best_query, slot.best_margin)
        slot.settle(image, query, margin, verdict)


def _continue(active: Sequence[Slot], answers: Sequence[Answer]) -> tuple[list[Slot], list[Slot]]:
    """Send the answers on; (the searches that go on, those that ended or whose image is broken)."""
    going, ended = [], []
    for slot, answer in zip(active, answers, strict=True):
        try:
            if slot.broken:
                slot.search.close()
                ended.append(slot)
            else:
                slot.ask(slot.search.send(answer))
                going.append(slot)
        except StopIteration:
            ended.append(slot)
    return going, ended
