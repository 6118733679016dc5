"""How much a caller may ask for: one token bucket a key, counted in image-steps."""

import math
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

from service.auth import Caller
from service.errors import RateLimitedError


class RateLimiter:
    """Buckets that start full and fill at the key's rate. Used from the event loop's thread only.

    Args:
        rate: image-steps per second of a key that `rates` does not name; None is no limit.
        burst_seconds: how long a bucket takes to fill.
        rates: the rates of single keys, by id.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        rate: float | None,
        burst_seconds: float,
        rates: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate, self._burst_seconds, self._rates, self._clock = rate, burst_seconds, dict(rates or {}), clock
        self._buckets: dict[str, tuple[float, float]] = {}  # by id: image-steps, and when

    def take(self, caller: Caller, cost: int) -> None:
        """Take `cost` image-steps from the caller's bucket; raises RateLimitedError and takes none if it has fewer."""
        rate = self._rates.get(caller.id, self._rate)
        if rate is None:
            return
        now, burst = self._clock(), rate * self._burst_seconds
        level, since = self._buckets.get(caller.id, (burst, now))
        level = min(burst, level + rate * (now - since))
        if cost > level:
            _refuse(cost, level, burst, rate)
        self._buckets[caller.id] = level - cost, now


def _refuse(cost: int, level: float, burst: float, rate: float) -> NoReturn:
    if cost > burst:
        raise RateLimitedError(
            f"the request costs {cost} image-steps (images x chains x steps, and classifying), "
            f"the key may use at most {burst:g} at once"
        )
    raise RateLimitedError(
        f"the request costs {cost} image-steps, the key has {level:g} left of {burst:g} and gains {rate:g} a second",
        retry_after=max(1, math.ceil((cost - level) / rate)),
    )
