"""Who is let in: bounded by the work that waits, in image-steps, and counted before any image is decoded."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from service.errors import DeadlineError, OverloadedError, UnavailableError


class Load(Protocol):
    """What the engine says of its work: image-steps still to run, and how many it runs per second."""

    @property
    def outstanding(self) -> int: ...
    @property
    def rate(self) -> float: ...


class Reservation:
    """Room for image-steps that no engine counts yet."""

    def __init__(self, admission: "Admission", cost: int) -> None:
        self._admission, self.cost = admission, cost

    def release(self, cost: int) -> None:
        """Give up part of the room: the engine counts that work from now on, or nobody will do it."""
        self.cost -= cost
        self._admission._release(cost)


class Admission:
    """Lets requests in while the device would be done with all of them in time. Used from the event loop alone.

    Args:
        queue_seconds: how much work may wait, in seconds at the measured speed.
        max_requests: how many requests may be in progress, their bodies' arrival included.
        overloaded: what to raise when there is no room.

    `leaving` says that the server is about to stop, `closed` that it takes no new requests any more.
    """

    def __init__(
        self,
        load: Load,
        queue_seconds: float,
        max_requests: int,
        overloaded: type[OverloadedError] = OverloadedError,
    ) -> None:
        self._load, self.queue_seconds, self.max_requests = load, queue_seconds, max_requests
        self._overloaded = overloaded
        self.requests = self._reserved = 0
        self.leaving = self.closed = False
        self._emptied = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Image-steps to run: those admitted and not yet handed to the engine, and the engine's own."""
        return self._reserved + self._load.outstanding

    @property
    def fraction(self) -> float:
        """How full the queue is: 0 empty, 1 full."""
        limit = self.queue_seconds * self._load.rate
        return min(1.0, self.waiting / limit) if limit else 0.0

    def retry_after(self, cost: int = 0) -> int:
        """Whole seconds, at least 1, until so much work should find room."""
        excess = (self.waiting + cost) / self._load.rate - self.queue_seconds if self._load.rate else 0.0
        return max(1, math.ceil(excess))

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for requests; taken before the body is read.

        Raises:
            OverloadedError: all are taken.
            UnavailableError: the server is stopping.
        """
        if self.closed:
            raise UnavailableError("the server is stopping and takes no new requests", retry_after=1)
        if self.requests >= self.max_requests:
            raise self._overloaded(f"{self.max_requests} requests are in progress", retry_after=self.retry_after())
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            if not self.requests:
                self._emptied.set()

    async def empty(self) -> None:
        """Return once no request is in progress."""
        while self.requests:
            self._emptied.clear()
            await self._emptied.wait()

    @contextmanager
    def admit(self, cost: int, timeout: float) -> Iterator[Reservation]:
        """Hold room for `cost` image-steps; an empty queue takes a request of any cost.

        The wait in the queue is not held against `timeout`: how long it is depends on the lengths of the others.

        Raises:
            OverloadedError: the queue would be longer than `queue_seconds`.
            DeadlineError: the request alone takes longer than `timeout` seconds.
            UnavailableError: the engine has not measured its speed yet.
        """
        rate, waiting = self._load.rate, self.waiting
        if not rate:
            raise UnavailableError("the engine is warming up", retry_after=1)
        if cost / rate > timeout:
            raise DeadlineError(
                f"{cost} image-steps take about {cost / rate:.1f} s here, more than the {timeout:g} s of this request"
            )
        if waiting and (waiting + cost) / rate > self.queue_seconds:
            raise self._overloaded(
                f"{waiting / rate:.1f} s of work are waiting; the queue holds {self.queue_seconds:g} s",
                retry_after=self.retry_after(cost),
            )
        reservation = Reservation(self, cost)
        self._reserved += cost
        try:
            yield reservation
        finally:
            reservation.release(reservation.cost)

    def _release(self, cost: int) -> None:
        self._reserved -= cost
