"""Training sets that are decoded as they are read, for images that are too many to keep decoded."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from torch import Tensor

from models.data_batches import AHEAD, Batches, BatchPlan, State, ahead, drawn_batches
from models.data_decoding import Encoded, decode_all
from models.data_folder import ImageFolder, ImageSource
from models.errors import DataError
from models.streams import Stream

BLOCK = 2500
"""Images that are shuffled together: the buffer of EBM Life Cycle's code."""


@dataclass(frozen=True)
class _Decoded:
    """Images of a source, as they come out: [channels, side, side]."""

    source: ImageSource
    side: int
    channels: int

    @property
    def name(self) -> str:
        """The source's."""
        return self.source.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, side, side)."""
        return self.channels, self.side, self.side

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The source's."""
        return self.source.class_names

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class FolderStream(_Decoded):
    """Image files, drawn uniformly with replacement and decoded when they are drawn."""

    source: ImageFolder

    def batches(self, plan: BatchPlan) -> Batches:
        """The plan's batches; their files are read and decoded ahead of the sampler."""
        pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="limpid-decode")

        def read(rows: Tensor) -> Tensor:
            return decode_all([self.source[row] for row in rows.tolist()], self.side, self.channels, pool)

        return drawn_batches(read, len(self), plan, in_memory=False)


@dataclass(frozen=True)
class TableStream(_Decoded):
    """Rows of a table, read in order and shuffled: its files each epoch, its rows within blocks of `block`.

    Each epoch has every image once. A table sorted by class mixes badly this way: cache that one. Every process of a
    distributed run reads the whole stream and decodes its part.
    """

    block: int = BLOCK

    def batches(self, plan: BatchPlan) -> Batches:
        """The plan's batches; a thread reads the next block and decodes the next batches ahead of the sampler.

        The state is the batches so far, and the epoch, the block's start (how many of the epoch's files are behind it,
        and how many rows of the next), and the images taken from that block.
        """
        first = {"batches": 0, "epoch": 0, "block": 0, "shard": 0, "row": 0, "taken": 0}
        return Batches(lambda state: ahead(self._follow(plan, state), AHEAD), first)

    def _follow(self, plan: BatchPlan, state: State) -> Iterator[tuple[Tensor, State]]:
        images = self._images(plan.seed, state)
        number = state["batches"]
        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="limpid-decode") as pool:
            while True:
                encoded, states = zip(*islice(images, plan.count), strict=True)
                batch = decode_all(encoded[plan.own], self.side, self.channels, pool)
                batch = plan.mirror(number, batch)
                number += 1
                yield batch, {**states[-1], "batches": number}

    def _images(self, seed: int, state: State) -> Iterator[tuple[Encoded, State]]:
        """Each image with the state after it."""
        taken = state["taken"]
        for images, at in ahead(self._blocks(seed, state), 2):
            order = Stream((seed, "block", at["epoch"], at["block"])).generator().permutation(len(images))
            for number in range(taken, len(images)):
                yield images[order[number]], {**at, "taken": number + 1}
            taken = 0

    def _blocks(self, seed: int, state: State) -> Iterator[tuple[list[Encoded], State]]:
        """Each block, unshuffled, with the state at its start."""
        at = {**state, "taken": 0}
        while True:
            order = Stream((seed, "files", at["epoch"])).generator().permutation(self.source.shards)
            rows = _run(self.source, order.tolist(), at["shard"], at["row"])
            while block := list(islice(rows, self.block)):
                yield [row.image for row in block], at
                at = {**at, "block": at["block"] + 1, "shard": block[-1].shard, "row": block[-1].row}
            if at["block"] == 0:
                raise DataError(f"{self.name}: no images")
            at = {**at, "epoch": at["epoch"] + 1, "block": 0, "shard": 0, "row": 0}


class _Row(NamedTuple):
    image: Encoded
    shard: int
    row: int


def _run(source: ImageSource, order: list[int], shard: int, row: int) -> Iterator[_Row]:
    """The rows of the shards in this order, from a place on, each with the place after it."""
    for position in range(shard, len(order)):
        for image in source.read(order[position], row):
            row += 1
            yield _Row(image, position, row)
        row = 0
