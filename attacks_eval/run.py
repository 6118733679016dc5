"""An evaluation under way: what its phases share, and how each asks the ledger before it works."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from attacks_eval.attack import Attack
from attacks_eval.defence import Defence
from attacks_eval.judge import Verdict, judge
from attacks_eval.ledger import Key, Ledger
from attacks_eval.plans import Plan
from attacks_eval.slots import Outcome, Task
from attacks_eval.threat_model import ThreatModel
from attacks_eval.workers import Workers
from models.console import progress_bar
from models.streams import Stream

T = TypeVar("T")

Make = Callable[[Sequence[Task]], Iterable[tuple[Task, Tensor]]]
"""Tasks to adversarial images [C, H, W] for them."""

# Images judged side by side: enough to fill a batch with their first replicates.
JUDGE_BATCH = 16


@dataclass(frozen=True)
class Run:
    """What the phases of an evaluation share."""

    defence: Defence
    threat: ThreatModel
    plan: Plan
    tasks: tuple[Task, ...]
    ledger: Ledger
    stream: Stream
    workers: Workers

    def judged(self, section: str, tasks: Sequence[Task], title: str) -> dict[int, Verdict]:
        """The verdict on each task's image as it is; `section` and the task's `made_by` name noise and entries."""

        def key(task: Task) -> Key:
            return (section, *filter(None, (task.made_by,)), task.number)

        missing = [task for task in tasks if self.ledger.get(*key(task)) is None]
        for batch in batches(missing, title):
            verdicts = judge(
                self.defence,
                torch.stack([task.image for task in batch]),
                _labels(batch, self.defence.device),
                [self.stream.child(*key(task)) for task in batch],
                self.plan.judge,
            )
            for task, verdict in zip(batch, verdicts, strict=True):
                self.ledger.add(key(task), {"verdict": verdict.model_dump()})
        entries = {task.number: self.ledger.get(*key(task)) for task in tasks}
        return {number: Verdict.model_validate(entry["verdict"]) for number, entry in entries.items() if entry}

    def searched(
        self, key: Key, defence: Defence, attack: Attack, tasks: Sequence[Task], threat: ThreatModel, title: str
    ) -> dict[int, Outcome]:
        """The outcome of `attack` on each task; `key` names the noise and the ledger's entries."""
        missing = self._missing(key, tasks)
        if missing:
            with progress_bar(title, len(missing) * attack.queries) as progress:
                task_id = progress.task_ids[0]
                self.workers.run_attack(
                    defence,
                    attack,
                    missing,
                    threat,
                    self.stream.child(*key),
                    self.plan.judge,
                    self._recorder(key),
                    lambda queries: progress.advance(task_id, queries),
                )
        return self.finished(key, tasks)

    def tried(self, key: Key, tasks: Sequence[Task], make: Make, queries: int) -> dict[int, Outcome]:
        """Images made by `make`, without the defence or by another library, judged by the same rule."""
        missing = self._missing(key, tasks)
        if missing:
            record = self._recorder(key)
            with progress_bar(str(key[-1]), len(missing)) as progress:
                for batch in _chunks(make(missing)):
                    images = torch.stack([image for _, image in batch])
                    labels = _labels([task for task, _ in batch], images.device)
                    streams = [self.stream.child(*key, task.number, "judge", 0) for task, _ in batch]
                    verdicts = judge(self.defence, images, labels, streams, self.plan.judge)
                    for (task, image), verdict in zip(batch, verdicts, strict=True):
                        record(task, _crafted_outcome(verdict, queries), image)
                    progress.advance(progress.task_ids[0], len(batch))
        return self.finished(key, tasks)

    def finished(self, key: Key, tasks: Sequence[Task]) -> dict[int, Outcome]:
        """What the ledger holds of these tasks under `key`."""
        entries = {task.number: self.ledger.get(*key, task.number) for task in tasks}
        return {number: Outcome.model_validate(entry["outcome"]) for number, entry in entries.items() if entry}

    def kept(self, key: Key, number: int) -> Tensor:
        """The adversarial image [C, H, W] of a finished search."""
        return self.ledger.image(*key, number).to(self.defence.device)

    def _missing(self, key: Key, tasks: Sequence[Task]) -> list[Task]:
        return [task for task in tasks if self.ledger.get(*key, task.number) is None]

    def _recorder(self, key: Key) -> Callable[[Task, Outcome, Tensor], None]:
        def record(task: Task, outcome: Outcome, image: Tensor) -> None:
            self.ledger.add((*key, task.number), {"outcome": outcome.model_dump()}, image)

        return record


def _crafted_outcome(verdict: Verdict, queries: int) -> Outcome:
    return Outcome(
        verdict=verdict,
        broken_at=None,
        queries=queries,
        tries=1,
        early_loss=None,
        late_loss=None,
        zero_gradients=0,
    )


def _labels(tasks: Sequence[Task], device: torch.device) -> Tensor:
    return torch.tensor([task.label for task in tasks], device=device)


def _chunks(made: Iterable[tuple[Task, Tensor]]) -> Iterable[list[tuple[Task, Tensor]]]:
    stream = iter(made)
    while batch := list(itertools.islice(stream, JUDGE_BATCH)):
        yield batch


def batches(items: Sequence[T], title: str) -> Iterable[Sequence[T]]:
    """The items in batches for a judge, under a progress bar; nothing is shown when there are none."""
    if not items:
        return
    with progress_bar(title, len(items)) as progress:
        for start in range(0, len(items), JUDGE_BATCH):
            batch = items[start : start + JUDGE_BATCH]
            yield batch
            progress.advance(progress.task_ids[0], len(batch))
