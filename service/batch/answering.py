"""Images through the chains and the classifier, as many at a time as the device takes, without a server around them.

The engine's own worker runs them, in a batch of one fixed size that is refilled as chains end. Every core moves
`slots` chains, however many cores there are, and every image draws from a stream of its own, so that an answer depends
neither on its neighbours nor on how many cores or processes there are.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from models.bundle import Bundle
from models.chain_threads import ChainThreads
from models.gradients import freeze
from models.purifier import CHAINS_PER_BATCH
from models.streams import Stream
from service.errors import EngineError, RequestError
from service.intake import Answered
from service.jobs import Job, Result
from service.parameters import Plan
from service.slots import Profile, Slots
from service.worker import Worker

SLOTS = {"cpu": CHAINS_PER_BATCH, "cuda": 1024}
"""Chains that a core, or a GPU, moves together by default. Never measured on a GPU."""
QUANTUM = 16
"""Steps between two points where chains join and leave."""


@dataclass(frozen=True)
class Item:
    """One image of a part.

    Args:
        index: its number in the source.
        image: uint8 [C, H, W], or why it can not be answered.
    """

    part: int
    index: int
    key: str
    image: Tensor | RequestError


class Answerer:
    """Answers images by one plan.

    Args:
        bundle: on `device`, and nobody else's while this works.
        streams: where the noise of an image's chains comes from, by its key.
        slots: chains that a core, or a GPU, moves together.
    """

    def __init__(
        self, bundle: Bundle, plan: Plan, streams: Callable[[str], Stream], slots: int, device: torch.device
    ) -> None:
        self._params, self._streams = plan.params, streams
        self._threads = ChainThreads(1 if device.type == "cuda" else torch.get_num_threads())
        self._size = slots * self._threads.count
        image, profile = bundle.manifest.image, Profile({self._size: 0.0}, {self._size: QUANTUM})
        gradient = freeze(bundle.defence.energy, plan.params.preset.precision)
        shape = (image.channels, image.height, image.width)
        new_slots = partial(Slots, gradient, shape, profile, device, self._threads)
        # Nobody waits for the next quantum, so whatever is finished is classified at once.
        self._worker = Worker(bundle, new_slots, device, classified_a_turn=sys.maxsize)

    def answers(self, items: Iterable[Item]) -> Iterator[tuple[Item, Answered | RequestError]]:
        """What became of each image, as they end; takes the next ones in as the batch has room.

        Raises:
            EngineError: for a reason that is not the image's, such as memory.
        """
        source, pending = iter(items), dict[Job, Item]()
        while True:
            while self._room(len(pending)) and (item := next(source, None)) is not None:
                if isinstance(item.image, RequestError):
                    yield item, item.image
                    continue
                job = Job(item.image, self._params, "", None, self._streams(item.key))
                pending[job] = item
                self._worker.take(job)
            if not pending:
                return
            for job, outcome in self._worker.turn().settled:
                yield pending.pop(job), _outcome(job, outcome)

    def _room(self, images: int) -> bool:
        """Whether more images are wanted: two batches of chains are in hand, or of images that have no chain to run."""
        return max(self._worker.active + self._worker.waiting, images) < 2 * self._size

    def close(self) -> None:
        """End the threads."""
        self._threads.close()


def _outcome(job: Job, outcome: Result | RequestError) -> Answered | RequestError:
    if isinstance(outcome, Result):
        return Answered(job.image, outcome, None)
    if isinstance(outcome, EngineError) and outcome.__cause__ is not None:
        raise outcome  # nobody foresaw it, so it says nothing about the image
    return outcome


def stream_of_key(seed: int, key: str) -> Stream:
    """A stream of an image's own; the key's digest is of fixed form, so that no key names another one's stream."""
    return Stream(("batch", seed)).child(hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest())
