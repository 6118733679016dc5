"""Stopping without losing a request: not ready, then no new work, then what runs is finished, then the sockets close.

uvicorn closes its sockets at the first signal, so that a load balancer which has not noticed yet sees refused
connections. Here the first signal only starts the drain; a second one ends it at once.
"""

import asyncio
import logging
from collections.abc import Coroutine
from types import FrameType

import uvicorn
from starlette.concurrency import run_in_threadpool

from service.admission import Admission
from service.fleet import Fleet

log = logging.getLogger(__name__)

LINGER_SECONDS = 5.0
"""How long answers may take to leave once the engine has stopped."""


async def drain(admission: Admission, engine: Fleet, delay: float, timeout: float, hurry: asyncio.Event) -> None:
    """Let the requests in progress end.

    Args:
        delay: seconds during which new requests are still served, though readiness already says no: the time that load
            balancers need to notice.
        timeout: seconds that requests in progress may take from then on; what is left is answered with 503.
        hurry: ends the delay and the waiting at once.
    """
    admission.leaving = True
    log.info("draining: not ready any more, %d requests in progress", admission.requests)
    await _first(hurry.wait(), timeout=delay)
    admission.closed = True
    await _first(hurry.wait(), admission.empty(), timeout=timeout)
    if admission.requests:
        log.warning("%d requests did not end in time and are answered with 503", admission.requests)
        await run_in_threadpool(engine.stop)
        await _first(admission.empty(), timeout=LINGER_SECONDS)


async def _first(*events: Coroutine[None, None, object], timeout: float) -> None:
    """Wait until one of them has happened, but no longer than `timeout` seconds."""
    tasks = [asyncio.ensure_future(event) for event in events]
    await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


class DrainingServer(uvicorn.Server):
    """Drains at the first SIGTERM or SIGINT, and cuts the drain short at the second; the application's state holds
    what the drain needs.

    Args:
        delay, timeout: see `drain`.
    """

    def __init__(self, config: uvicorn.Config, delay: float, timeout: float) -> None:
        super().__init__(config)
        self._delay, self._timeout = delay, timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    async def main_loop(self) -> None:
        """Runs between start-up and shutdown."""
        self._loop = asyncio.get_running_loop()
        await super().main_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal handler: it only leaves the loop a note."""
        if self._loop is None or self._hurry.is_set():
            super().handle_exit(sig, frame)
        else:
            self._loop.call_soon_threadsafe(self._begin, sig, frame)

    def _begin(self, sig: int, frame: FrameType | None) -> None:
        if self._drain is not None:
            self._hurry.set()
            return
        service = self.config.loaded_app.app.state.service
        self._drain = asyncio.ensure_future(
            drain(service.admission, service.engine, self._delay, self._timeout, self._hurry)
        )
        self._drain.add_done_callback(lambda _: super(DrainingServer, self).handle_exit(sig, frame))
