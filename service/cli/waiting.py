"""While the service is waited for, the command says so."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from models.console import error_console

EVERY_SECONDS = 2.0


class _Lines(logging.Handler):
    """A line on standard error, and no other for a while, however many requests wait."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY_SECONDS
            error_console.print(record.getMessage(), style="yellow", emoji=False)


@contextmanager
def waiting_shown() -> Iterator[None]:
    """Show what the client logs of its retries."""
    lines, log = _Lines(), logging.getLogger("service.client")
    log.addHandler(lines)
    try:
        yield
    finally:
        log.removeHandler(lines)
