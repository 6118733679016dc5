"""Chains spread over CPU cores: each thread runs its share of the batch alone, with operations that use one core.

PyTorch's own way is to split every operation over all cores, which meets at a barrier twenty times a step. Chains do
not need each other, so many steps can pass without one. It pays for many steps at a time only: handing work to a thread
costs more than PyTorch's barriers of one step.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class ChainThreads:
    """`count` threads of one core each; a count of 1 has no thread of its own, and the caller does the work."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "limpid-chains") if count > 1 else None
        if self._pool is not None:
            # PyTorch hands the last number set by any thread to threads to come: confine ours, then put it back.
            before, all_there = torch.get_num_threads(), threading.Barrier(count)
            list(self._pool.map(_confine, [all_there] * count))
            torch.set_num_threads(before)

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`work` on each item, in order; raises what the first failing one raised."""
        if self._pool is None:
            return [work(item) for item in items]
        return list(self._pool.map(work, items))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def chain_threads() -> ChainThreads:
    """As many threads as PyTorch would use here, kept for the process; none of their own within such a thread."""
    return _kept(torch.get_num_threads())


@cache
def _kept(count: int) -> ChainThreads:
    return ChainThreads(count)


def shares(length: int, count: int) -> list[slice]:
    """At most `count` slices of nearly equal size that cover range(length), none of them empty."""
    edges = [length * number // count for number in range(count + 1)]
    return [slice(low, high) for low, high in pairwise(edges) if low < high]


def _confine(all_there: threading.Barrier) -> None:
    torch.get_num_threads()  # PyTorch sets a thread up when it is first asked, which would undo the next line
    torch.set_num_threads(1)
    all_there.wait()  # so that every thread of the pool takes one of these calls
