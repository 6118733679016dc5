"""Searches spread over processes of one thread each.

Small networks leave most cores of a machine idle between their layers; independent searches do not. Every search draws
from its own named stream, so the number of workers changes no verdict.
"""

import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from types import TracebackType

import torch
from torch import Tensor

from attacks_eval.attack import Attack
from attacks_eval.defence import Cost, Defence
from attacks_eval.errors import QuestionError
from attacks_eval.judge import JudgeConfig
from attacks_eval.protocol import Advance, Outcome, Record, Task, places, run_attack
from attacks_eval.streams import Stream
from attacks_eval.threat_model import ThreatModel

Found = list[tuple[Task, Outcome, Tensor]]


class Workers:
    """A pool that runs attacks; a context manager.

    Raises:
        QuestionError: more than one worker for a defence on a GPU, which one process fills.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        if count > 1 and device.type != "cpu":
            raise QuestionError(f"{count} workers share a CPU; on {device} use 1")
        self.pool = ProcessPoolExecutor(count, get_context("spawn"), _one_thread) if count > 1 else None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def run_attack(
        self,
        defence: Defence,
        attack: Attack,
        tasks: Sequence[Task],
        threat: ThreatModel,
        stream: Stream,
        judging: JudgeConfig,
        record: Record,
        advance: Advance,
    ) -> None:
        """`protocol.run_attack`, on every worker; outcomes are recorded as groups of searches end."""
        if self.pool is None:
            return run_attack(defence, attack, tasks, threat, stream, judging, record, advance)
        shared = pickle.dumps((defence, attack, threat, stream, judging))
        size = places(attack)
        groups = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        futures = [self.pool.submit(_search, shared, pickle.dumps(group)) for group in groups]
        for future in as_completed(futures):
            found, cost = pickle.loads(future.result())
            defence.cost.add(cost)
            for task, outcome, image in found:
                advance(attack.queries)
                record(task, outcome, image)
        return None


def _one_thread() -> None:
    torch.set_num_threads(1)


def _search(shared: bytes, tasks: bytes) -> bytes:
    """In a worker: one group of searches. Bytes in and out, so that no tensor needs shared memory."""
    defence, attack, threat, stream, judging = pickle.loads(shared)
    defence.cost = Cost()
    found: Found = []
    run_attack(
        defence,
        attack,
        pickle.loads(tasks),
        threat,
        stream,
        judging,
        lambda task, outcome, image: found.append((task, outcome, image.cpu())),
    )
    return pickle.dumps((found, defence.cost))
