"""What the engine's thread does between two looks at its inbox: one quantum of steps, then finished jobs' answers."""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from models.bundle import Bundle
from models.purifier import CHAINS_PER_BATCH
from service.answering import Answer, answer
from service.errors import DeadlineError, EngineError, RequestError, UnavailableError
from service.jobs import Chain, Job, Result
from service.scheduler import Scheduler
from service.slots import Slots

log = logging.getLogger(__name__)

MOST_FAILURES = 3
"""Quanta that may fail in a row before the worker gives up, for the process to be restarted."""


@dataclass
class Turn:
    """What a turn did: the steps of its quantum, and the jobs that ended with how."""

    active: int = 0
    bucket: int = 0
    steps: int = 0
    seconds: float = 0.0
    settled: list[tuple[Job, Result | RequestError]] = field(default_factory=list)


class Worker:
    """Owns the device's state; everything here runs in the engine's thread.

    Args:
        new_slots: makes empty slots, at the start and after a quantum that raised.
        classified_a_turn: images to classify, about, between two quanta, so that chains do not stand for long.
    """

    def __init__(
        self,
        bundle: Bundle,
        new_slots: Callable[[], Slots],
        device: torch.device,
        classified_a_turn: int = CHAINS_PER_BATCH,
    ) -> None:
        self._bundle, self._device, self._new_slots = bundle, device, new_slots
        self._classified_a_turn = classified_a_turn
        self._slots = new_slots()
        self._profile = self._slots.profile
        self._scheduler = Scheduler(self._profile.buckets[-1])
        self._answers: dict[str, deque[tuple[Job, Answer]]] = {}
        self._failures = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._answers and not any(self._scheduler)

    @property
    def active(self) -> int:
        """Chains that the next quantum will hold."""
        return min(self._scheduler.slots, self._scheduler.chains)

    @property
    def waiting(self) -> int:
        """Chains beyond those that fit the batch."""
        return self._scheduler.chains - self.active

    def take(self, job: Job) -> None:
        """Queue a job's chains; one without steps goes straight to its answer."""
        if job.unfinished:
            self._scheduler.add(job)
        else:
            job.started = time.perf_counter()
            self._begin_answer(job)

    def turn(self) -> Turn:
        """Drop what nobody waits for, run one quantum, and give answers as far as one batch of them goes."""
        turn = Turn()
        self._drop(turn)
        chosen = self._scheduler.choose()
        if chosen:
            self._quantum(chosen, turn)
        self._give_answers(turn)
        return turn

    def _drop(self, turn: Turn) -> None:
        now = time.monotonic()
        for job in [job for job in self._scheduler if job.abandoned or job.expired(now)]:
            self._remove(job)
            turn.settled.append((job, _abandoned() if job.abandoned else _late(job)))

    def _quantum(self, chosen: list[Chain], turn: Turn) -> None:
        jobs = {id(chain.job): chain.job for chain in chosen}.values()
        turn.active, turn.bucket = len(chosen), self._profile.bucket(len(chosen))
        steps = min(self._profile.quantum[turn.bucket], *(chain.uninterrupted for chain in chosen))
        started = time.perf_counter()
        for job in jobs:
            job.started = job.started or started
        try:
            self._slots.seat(chosen)
            self._slots.run(chosen, steps)
        except Exception as error:
            self._recover(error, list(jobs), turn)
            return
        self._failures = 0
        turn.steps, turn.seconds = steps, time.perf_counter() - started
        self._scheduler.ran(steps)
        for chain in chosen:
            chain.job.steps_done += steps
            if not chain.remaining:
                self._slots.leave(chain)
                chain.job.unfinished.remove(chain)
        for job in jobs:
            if not job.unfinished:
                self._scheduler.remove(job)
                self._begin_answer(job)

    def _recover(self, error: Exception, jobs: list[Job], turn: Turn) -> None:
        """Fail the jobs of the batch, which can be tried again, and start over with fresh slots."""
        self._failures += 1
        log.exception("a quantum of %d jobs failed, %d in a row", len(jobs), self._failures, exc_info=error)
        hurt = [job for job in self._scheduler if any(chain.slot is not None for chain in job.unfinished)]
        for job in {id(job): job for job in (*jobs, *hurt)}.values():
            self._scheduler.remove(job)
            turn.settled.append((job, _hidden(error)))
        if self._failures >= MOST_FAILURES:
            raise EngineError(f"{self._failures} quanta failed in a row") from error
        self._slots = self._new_slots()

    def _begin_answer(self, job: Job) -> None:
        job.purified = time.perf_counter()
        self._answers.setdefault(job.key, deque()).append((job, answer(job, self._bundle.defence, self._device)))

    def _give_answers(self, turn: Turn) -> None:
        """Classify some images, the keys taking turns."""
        budget = self._classified_a_turn
        while self._answers and budget > 0:
            key = next(iter(self._answers))
            waiting = self._answers.pop(key)
            budget -= self._classify_some(waiting, turn)
            if waiting:
                self._answers[key] = waiting  # at the end: the next key is next

    def _classify_some(self, waiting: deque[tuple[Job, Answer]], turn: Turn) -> int:
        """One batch of a key's first job, or its end; how many images were classified."""
        job, batches = waiting[0]
        try:
            if job.abandoned:
                raise _abandoned()
            if job.expired(time.monotonic()):
                raise _late(job)
            return next(batches)
        except StopIteration as done:
            turn.settled.append((job, done.value))
        except RequestError as error:
            turn.settled.append((job, error))
        except Exception as error:
            log.exception("a request failed in the engine")
            turn.settled.append((job, _hidden(error)))
        waiting.popleft()
        return 0

    def _remove(self, job: Job) -> None:
        for chain in job.unfinished:
            if chain.slot is not None:
                self._slots.leave(chain)
        self._scheduler.remove(job)


def _abandoned() -> UnavailableError:
    return UnavailableError("nobody waits for this answer any more")


def _late(job: Job) -> DeadlineError:
    return DeadlineError(f"the deadline passed after {job.steps_done} of {job.params.cost} image-steps")


def _hidden(error: Exception) -> EngineError:
    """What a client may know of an error that nobody foresaw."""
    failure = EngineError("the engine failed on this request; the server's log has the cause")
    failure.__cause__ = error
    return failure
