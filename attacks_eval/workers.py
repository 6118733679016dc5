"""Searches spread over processes of one thread each.

Small networks leave most cores of a machine idle between their layers; independent searches do not. Every search draws
from its own named stream, so the number of workers changes no verdict.
"""

import multiprocessing.connection
import os
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from math import ceil
from multiprocessing import get_context
from multiprocessing.queues import Queue
from queue import Empty
from types import TracebackType

import torch
from torch import Tensor

from attacks_eval.attack import Attack
from attacks_eval.defence import Cost, Defence
from attacks_eval.errors import DefenceError, QuestionError
from attacks_eval.judge import JudgeConfig
from attacks_eval.protocol import Advance, Record, run_attack
from attacks_eval.slots import Outcome, Task
from attacks_eval.threat_model import ThreatModel
from models.streams import Stream

# Groups of tasks for each worker: several, so that none waits long for the last; each large enough to refill places.
GROUPS = 4
SECONDS_BETWEEN_CHECKS = 1.0

_results: "Queue[bytes]"


class Workers:
    """A pool that runs attacks; a context manager. With one worker, attacks run in this process.

    Raises:
        QuestionError: more than one worker for a defence on a GPU, which one process fills.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        if count > 1 and device.type != "cpu":
            raise QuestionError(f"{count} workers share a CPU; on {device} use 1")
        context = get_context("spawn")
        self.count = count
        self.results: Queue[bytes] = context.Queue()
        self.pool = ProcessPoolExecutor(count, context, _begin, (self.results,)) if count > 1 else None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=error is None, cancel_futures=True)

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
        """`protocol.run_attack`, on every worker; outcomes are recorded as searches end."""
        if self.pool is None:
            return run_attack(defence, attack, tasks, threat, stream, judging, record, advance)
        shared = pickle.dumps((defence, attack, threat, stream, judging))
        size = ceil(len(tasks) / (GROUPS * self.count))
        groups = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        futures = [self.pool.submit(_search, shared, pickle.dumps(group)) for group in groups]
        for _ in tasks:
            task, outcome, image, cost = self._next(futures)
            defence.cost.add(cost)
            advance(attack.queries)
            record(task, outcome, image)
        return None

    def _next(self, futures: Sequence[Future[None]]) -> tuple[Task, Outcome, Tensor, Cost]:
        """The next outcome of any worker; raises what a worker raised."""
        while True:
            try:
                found: tuple[Task, Outcome, Tensor, Cost] = pickle.loads(
                    self.results.get(timeout=SECONDS_BETWEEN_CHECKS)
                )
                return found
            except Empty:
                for future in futures:
                    if future.done():
                        _raise_of(future)


def _raise_of(future: Future[None]) -> None:
    try:
        future.result()
    except BrokenProcessPool as error:
        raise DefenceError("a worker died, perhaps for want of memory; what is finished is kept: --resume") from error


def _begin(results: "Queue[bytes]") -> None:
    """In a new worker: one thread, and where outcomes go."""
    global _results
    _results = results
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A worker whose parent was killed has nobody to tell, and would search on for hours."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _search(shared: bytes, tasks: bytes) -> None:
    """In a worker: one group of searches. Bytes in and out, so that no tensor needs shared memory."""
    defence, attack, threat, stream, judging = pickle.loads(shared)

    def send(task: Task, outcome: Outcome, image: Tensor) -> None:
        spent, defence.cost = defence.cost, Cost()
        _results.put(pickle.dumps((task, outcome, image.cpu(), spent)))

    defence.cost = Cost()
    run_attack(defence, attack, pickle.loads(tasks), threat, stream, judging, send)
