"""Whether, and how long after a failure, the same question is asked again."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field

from models.config import Frozen
from service.client.errors import ClientError, ConnectionLost, ServiceProblem, Unreachable

log = logging.getLogger(__name__)

PASSING = (429, 502, 503)
"""Too many requests, a proxy that found no server, a server that is full, starting or leaving."""


class Retries(Frozen):
    """Waits grow twofold from `first_wait` to `longest_wait`, seconds, until they would exceed `total_wait` together.

    The service's Retry-After, when it says one, is waited for in full; a `total_wait` of 0 tries once.

    Args:
        first_contact: seconds for which a client tries to connect at all, as long as it never could.
    """

    total_wait: float = Field(default=60.0, ge=0)
    first_wait: float = Field(default=0.25, gt=0)
    longest_wait: float = Field(default=8.0, gt=0)
    first_contact: float = Field(default=60.0, ge=0)


DEFAULT = Retries()


@dataclass
class Contact:
    """Whether a client's service was ever there: what was comes back, what never was may have another address."""

    made: bool = False


class Patience:
    """What is left of the retries of one question.

    Args:
        contact: what all questions of a client share.
        draw: uniform on [0, 1): half of each wait is random, so that clients which failed together return apart.
    """

    def __init__(self, retries: Retries, contact: Contact, draw: Callable[[], float] = random.random) -> None:
        self._retries, self._contact, self._draw = retries, contact, draw
        self._left, self._next = retries.total_wait, retries.first_wait
        self._began = time.monotonic()

    def wait_after(self, error: ClientError) -> float:
        """Seconds to wait before the next try; raises `error` when there is none."""
        if not _passing(error):
            raise error
        backoff = min(self._next, self._retries.longest_wait)
        asked = error.retry_after if isinstance(error, ServiceProblem) else None
        seconds = (backoff / 2 if asked is None else asked) + self._draw() * backoff / 2
        left = self._left
        if isinstance(error, Unreachable) and not self._contact.made:
            # By the clock: a connection that nobody refuses takes seconds to fail.
            left = min(left, self._began + self._retries.first_contact - time.monotonic())
        if seconds > left:
            raise error
        self._left -= seconds
        self._next = 2 * backoff
        log.warning("%s; asking again in %.1f s, for at most %.0f s more", error, seconds, left)
        return seconds


def _passing(error: ClientError) -> bool:
    """Whether another try may end otherwise."""
    return isinstance(error, ConnectionLost) or (isinstance(error, ServiceProblem) and error.status in PASSING)
