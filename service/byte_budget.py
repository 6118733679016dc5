"""How many bytes of request bodies may be in memory at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import OverloadedError


class ByteBudget:
    """Shared by the requests whose bodies arrive or wait to be decoded. Used from the event loop alone.

    Args:
        limit: bytes in all; a request that is alone may have more.
        overloaded: what to raise when there is no room.
    """

    def __init__(self, limit: int, overloaded: type[OverloadedError] = OverloadedError) -> None:
        self._limit, self._overloaded, self.held = limit, overloaded, 0

    @contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """Yield what takes room for bytes that arrive, or raises OverloadedError; at the end they are given back."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self.held > taken and self.held + size > self._limit:
                raise self._overloaded(
                    f"the bodies of requests in progress fill the {self._limit} bytes that this server gives them",
                    retry_after=1,
                )
            taken += size
            self.held += size

        try:
            yield take
        finally:
            self.held -= taken
