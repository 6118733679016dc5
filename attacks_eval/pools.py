"""Where groups of searches run beside each other: processes of this machine, or tasks of a Ray cluster.

Bytes go in and out, so that no tensor needs shared memory. Every search draws from its own named stream, so where it
runs changes no verdict.
"""

import multiprocessing.connection
import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.queues import Queue
from queue import Empty
from typing import Protocol

import torch

from attacks_eval.defence import Cost
from attacks_eval.errors import DefenceError
from attacks_eval.protocol import attacked
from models.ray_cluster import connect, machines

SECONDS_BETWEEN_CHECKS = 1.0

_results: "Queue[bytes]"


class Pool(Protocol):
    """Runs `count` groups of searches at a time."""

    count: int

    def outcomes(self, shared: bytes, groups: Sequence[bytes]) -> Iterator[bytes]:
        """Each search's pickled (task, outcome, image, cost) as it ends, perhaps more than once.

        Args:
            shared: the pickled defence, attack, threat model, stream and judge's settings.
            groups: pickled lists of tasks.

        Raises:
            DefenceError: a process or a machine died too often; also whatever a search raises.
        """
        ...

    def close(self, wait: bool) -> None:
        """Give up what has not begun; `wait` for the rest."""
        ...


class ProcessPool:
    """Processes of one thread each, which end with this one."""

    def __init__(self, count: int) -> None:
        context = get_context("spawn")
        self.count = count
        self._results: Queue[bytes] = context.Queue()
        self.executor = ProcessPoolExecutor(count, context, _begin, (self._results,))

    def outcomes(self, shared: bytes, groups: Sequence[bytes]) -> Iterator[bytes]:
        futures = [self.executor.submit(_search, shared, group) for group in groups]
        while True:
            try:
                yield self._results.get(timeout=SECONDS_BETWEEN_CHECKS)
            except Empty:
                for future in futures:
                    if future.done():
                        _raise_of(future)

    def close(self, wait: bool) -> None:
        self.executor.shutdown(wait=wait, cancel_futures=True)


class RayPool:
    """Tasks of one thread, or one GPU, each; those of a machine that dies are run again elsewhere.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers at `address`.
    """

    def __init__(self, address: str, device: torch.device) -> None:
        self._stack = ExitStack()
        self._ray = self._stack.enter_context(connect(address))
        self._resources: dict[str, int] = {"num_gpus": 1} if device.type == "cuda" else {"num_cpus": 1}
        self.count = machines(self._ray, "GPU" if device.type == "cuda" else "CPU")

    def outcomes(self, shared: bytes, groups: Sequence[bytes]) -> Iterator[bytes]:
        ray = self._ray
        kept = ray.put(shared)
        task = ray.remote(**self._resources)(_searched)
        running = [task.remote(kept, group) for group in groups]
        try:
            while running:
                (ready,), _ = ray.wait(running, num_returns=1)
                try:
                    yield ray.get(next(ready))
                except StopIteration:
                    running.remove(ready)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # the search's own, without a remote traceback in its message
        except ray.exceptions.RayError as error:
            raise DefenceError(f"the cluster lost a task ({error}); what is finished is kept: --resume") from error

    def close(self, wait: bool) -> None:
        self._stack.close()  # the cluster ends the tasks of whoever disconnects


def _raise_of(future: Future[None]) -> None:
    try:
        future.result()
    except BrokenProcessPool as error:
        raise DefenceError("a worker died, perhaps for want of memory; what is finished is kept: --resume") from error


def _begin(results: "Queue[bytes]") -> None:
    """In a new worker: where outcomes go, and until when."""
    global _results
    _results = results
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A worker whose parent was killed has nobody to tell, and would search on for hours."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _search(shared: bytes, tasks: bytes) -> None:
    """In a worker: one group of searches."""
    for outcome in _searched(shared, tasks):
        _results.put(outcome)


def _searched(shared: bytes, tasks: bytes) -> Iterator[bytes]:
    """One group's outcomes as they end, each with what was spent since the one before."""
    torch.set_num_threads(1)
    defence, attack, threat, stream, judging = pickle.loads(shared)
    defence.cost = Cost()
    for task, outcome, image in attacked(defence, attack, pickle.loads(tasks), threat, stream, judging):
        spent, defence.cost = defence.cost, Cost()
        yield pickle.dumps((task, outcome, image.cpu(), spent))
