"""The streams of data that a training reads: one for each purpose, so that none depends on how far another one is."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from models.banks import Fresh
from models.data import Batches, BatchPlan, ImageDataset, TrainingSet
from models.data_batches import drawn_batches
from models.errors import DataError
from models.pixels import from_uint8
from models.training.distributed import ALONE, World

Purpose = Literal["warm start", "positives", "restarts", "bank start"]
PURPOSES = get_args(Purpose)
S = TypeVar("S", "Batches", "DataStarts")


class DataStreams:
    """A training set and the streams that a training has opened on it.

    Args:
        seed: names the streams together with their purposes.
        flip: mirror each image with probability 1/2.
        world: the processes that share out each batch.
    """

    def __init__(self, data: TrainingSet, seed: int, flip: bool, world: World = ALONE) -> None:
        self.shape = data.shape
        self._data, self._seed, self._flip, self._world = data, seed, flip, world
        self._opened: dict[str, Batches | DataStarts] = {}
        self._saved: dict[str, Any] = {}

    def batches(self, purpose: Purpose, count: int) -> Batches:
        """This process's parts of batches of `count` images, from where a checkpoint left the stream."""
        return self._resumed(purpose, self._new(purpose, count))

    def labels(self, purpose: Purpose, count: int) -> Iterator[Tensor]:
        """int64: the labels of the images that `batches(purpose, count)`, which must be open, gives from now on."""
        data = self._labelled()
        plan = replace(self._plan(purpose, count), flip=False)
        stream = drawn_batches(data.labels.__getitem__, len(data), plan, in_memory=True)
        stream.load_state_dict(self._opened[purpose].state_dict())
        return stream

    @property
    def all_labels(self) -> Tensor:
        """int64 [N]: every image's label."""
        return self._labelled().labels

    def starts(self, purpose: Purpose, count: int, device: torch.device) -> "DataStarts":
        """Single images from batches of `count`, from where a checkpoint left the stream."""
        return self._resumed(purpose, DataStarts(self._new(purpose, count), count, device, self._world))

    def state_dict(self) -> dict[str, Any]:
        """Where each stream stands, by purpose: plain numbers, the same in every process."""
        return self._saved | {purpose: stream.state_dict() for purpose, stream in self._opened.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Streams that are opened from now on go on from there; those that the state does not have begin."""
        self._saved = dict(state)

    def _resumed(self, purpose: Purpose, stream: S) -> S:
        stream.load_state_dict(stream.state_dict() | self._saved.get(purpose, {}))
        self._opened[purpose] = stream
        return stream

    def _new(self, purpose: Purpose, count: int) -> Batches:
        return self._data.batches(self._plan(purpose, count))

    def _plan(self, purpose: Purpose, count: int) -> BatchPlan:
        seed = len(PURPOSES) * self._seed + PURPOSES.index(purpose)
        return BatchPlan(count, seed, self._flip, self._world.rank, self._world.size)

    def _labelled(self) -> ImageDataset:
        if not isinstance(self._data, ImageDataset):
            raise DataError(f"{self._data.name} is streamed, and streams have no labels")
        return self._data


class DataStarts:
    """Starts of chains, taken one by one from the batches of a stream: few chains restart, and what is not used is not
    read. Each process reads its part of a batch, and gets the others' from them.

    Args:
        count: images in a batch of all processes together.
        device: where the starts are wanted.
    """

    def __init__(self, batches: Batches, count: int, device: torch.device, world: World = ALONE) -> None:
        self._batches, self._count, self._device, self._world = batches, count, device, world
        self._before, self._taken = batches.state_dict(), 0
        self._batch: Tensor | None = None

    def __call__(self, count: int) -> Fresh:
        """The next `count` images, in [-1, 1]; see `Source`."""
        parts = [self._take(count)]
        while missing := count - sum(map(len, parts)):
            parts.append(self._take(missing))
        return Fresh(from_uint8(torch.cat(parts)))

    def state_dict(self) -> dict[str, Any]:
        """The stream before the batch at hand, and how many of its images are taken."""
        return {"stream": self._before, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._batches.load_state_dict(state["stream"])
        self._before, self._taken, self._batch = dict(state["stream"]), state["taken"], None

    def _take(self, count: int) -> Tensor:
        """uint8: at most `count` images, for a batch may end before."""
        if self._batch is not None and self._taken >= len(self._batch):
            self._before, self._taken, self._batch = self._batches.state_dict(), 0, None
        if self._batch is None:
            self._batch = self._world.join(next(self._batches).to(self._device), self._count)
        part = self._batch[self._taken : self._taken + count]
        self._taken += len(part)
        return part
