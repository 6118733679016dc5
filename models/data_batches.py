"""What training reads: one form for images in memory, mapped from disk, or decoded as they stream in.

Batch n is a function of (seed, n), so that a stream resumes from a few numbers, threads cannot reorder it, and the
processes of a distributed run each take their rows of the same global batch without speaking to each other.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from models.errors import DataError
from models.streams import Stream

T = TypeVar("T")
State = dict[str, int]

AHEAD = 4
"""Batches that are read while the sampler runs."""


@dataclass(frozen=True)
class BatchPlan:
    """Which batches a process takes.

    Args:
        count: images in a batch of all processes together.
        seed: names the stream; streams of different seeds are independent.
        flip: mirror each image with probability 1/2.
        rank, world: this process takes the `rank`-th of `world` contiguous parts of each batch.
    """

    count: int
    seed: int
    flip: bool = False
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise DataError(f"rank {self.rank} is not one of {self.world} processes")
        if self.count < self.world:
            raise DataError(f"a batch of {self.count} images cannot be divided among {self.world} processes")

    @property
    def own(self) -> slice:
        """This process's rows of a batch."""
        return slice(self.rank * self.count // self.world, (self.rank + 1) * self.count // self.world)

    def rows(self, number: int, length: int) -> Tensor:
        """int64: this process's rows of batch `number`, drawn from range(length) with replacement."""
        drawn = Stream((self.seed, "rows", number)).generator().integers(length, size=self.count)
        return torch.from_numpy(drawn[self.own])

    def mirror(self, number: int, batch: Tensor) -> Tensor:
        """This process's part of batch `number`, mirrored where its coin says so."""
        if not self.flip:
            return batch
        mirrored = Stream((self.seed, "flip", number)).uniform((self.count,))[self.own] < 0.5
        return torch.where(mirrored[:, None, None, None], batch.flip(3), batch)


class Batches:
    """Endless uint8 batches [B, C, H, W], B the process's part of the plan's count.

    `state_dict` after a batch restores the ones that follow it, in any number of processes; it is plain numbers, and
    what was read ahead is not in it.
    """

    def __init__(self, follow: Callable[[State], Iterator[tuple[Tensor, State]]], first: State) -> None:
        """`follow` gives, from a state on, each batch with the state after it."""
        self._follow, self._state = follow, first
        self._items: Iterator[tuple[Tensor, State]] | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        if self._items is None:
            self._items = self._follow(self._state)
        batch, self._state = next(self._items)
        return batch

    def state_dict(self) -> State:
        """Where the stream stands, for a checkpoint."""
        return dict(self._state)

    def load_state_dict(self, state: State) -> None:
        """Undo `state_dict`."""
        self._state, self._items = dict(state), None


class TrainingSet(Protocol):
    """A training split, wherever its images are."""

    @property
    def name(self) -> str:
        """The dataset's name, for messages."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a label; none for images without labels."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def batches(self, plan: BatchPlan) -> Batches:
        """The plan's batches, from the first one on."""
        ...


@dataclass(frozen=True)
class ImageDataset:
    """images uint8 [N, C, H, W], labels int64 [N], one class name per label; label -1 where there are no classes.

    `mapped` images are on disk, and come into memory where they are indexed.
    """

    name: str
    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    mapped: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def of_classes(self, labels: Sequence[int]) -> "ImageDataset":
        """The images with one of these labels, which keep their numbers; raises DataError where a class has none."""
        if absent := set(labels) - set(self.labels.unique().tolist()):
            raise DataError(f"{self.name} has no images with labels {sorted(absent)}")
        kept = torch.isin(self.labels, torch.tensor(labels))
        return replace(self, images=self.images[kept], labels=self.labels[kept], mapped=False)

    def without_last(self, count: int) -> "ImageDataset":
        """All but the last `count` images; raises DataError where none would be left."""
        if count >= len(self):
            raise DataError(f"{self.name} has {len(self)} images, {count} cannot be held out")
        return self._rows(slice(0, len(self) - count))

    def last(self, count: int) -> "ImageDataset":
        """The last `count` images."""
        return self._rows(slice(len(self) - count, len(self)))

    def _rows(self, rows: slice) -> "ImageDataset":
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def batches(self, plan: BatchPlan) -> Batches:
        """Batches drawn uniformly with replacement."""
        return drawn_batches(self.images.__getitem__, len(self), plan, in_memory=not self.mapped)


def drawn_batches(read: Callable[[Tensor], Tensor], length: int, plan: BatchPlan, in_memory: bool) -> Batches:
    """Batches of `length` images drawn uniformly with replacement; `read` gives the images of some rows."""

    def follow(state: State) -> Iterator[tuple[Tensor, State]]:
        number = state["batches"]
        while True:
            batch = plan.mirror(number, read(plan.rows(number, length)))
            number += 1
            yield batch, {"batches": number}

    return Batches(follow if in_memory else lambda state: ahead(follow(state), AHEAD), {"batches": 0})


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items in the same order, up to `depth` of them made early by a thread; its errors are raised in turn."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="limpid-data")
    end: Any = object()
    pending = deque(pool.submit(next, items, end) for _ in range(depth))
    try:
        while (item := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, items, end))
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
