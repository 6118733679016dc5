"""Who is let in: a bounded number of requests, counted before any of their images is decoded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import OverloadedError


class Admission:
    """At most `limit` requests between here and their answer. Used from the event loop's thread only.

    Args:
        retry_after: estimates, in seconds, when a request that is turned away should try again.
    """

    def __init__(self, limit: int, retry_after: Callable[[], int]) -> None:
        self.limit, self.admitted, self._retry_after = limit, 0, retry_after

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Hold one place; raises OverloadedError at once when all are taken."""
        if self.admitted >= self.limit:
            raise OverloadedError(f"all {self.limit} places are taken", retry_after=self._retry_after())
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1
