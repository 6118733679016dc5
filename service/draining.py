"""Stopping without losing a request: not ready, then no new work, then what runs is finished, then the sockets close.

uvicorn closes its sockets at the first signal, so that a load balancer which has not noticed yet sees refused
connections. Here the first signal only starts the drain; a second one ends it at once.
"""

import asyncio
import logging
from types import FrameType

import uvicorn
from starlette.concurrency import run_in_threadpool

from service.admission import Admission
from service.fleet import Fleet

log = logging.getLogger(__name__)


async def drain(admission: Admission, engine: Fleet, delay: float, timeout: float) -> None:
    """Let the requests in progress end.

    Args:
        delay: seconds during which new requests are still served, though readiness already says no: the time that load
            balancers need to notice.
        timeout: seconds that requests in progress may take from then on; what is left is answered with 503.
    """
    admission.leaving = True
    log.info("draining: not ready any more, %d requests in progress", admission.requests)
    await asyncio.sleep(delay)
    admission.closed = True
    try:
        await asyncio.wait_for(admission.empty(), timeout)
    except TimeoutError:
        log.warning("%d requests did not end within %g s and are answered with 503", admission.requests, timeout)
        await run_in_threadpool(engine.stop)
        await admission.empty()


class DrainingServer(uvicorn.Server):
    """Drains at the first SIGTERM or SIGINT; the application's state holds what the drain needs.

    Args:
        delay, timeout: see `drain`.
    """

    def __init__(self, config: uvicorn.Config, delay: float, timeout: float) -> None:
        super().__init__(config)
        self._delay, self._timeout = delay, timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None

    async def main_loop(self) -> None:
        """Runs between start-up and shutdown."""
        self._loop = asyncio.get_running_loop()
        await super().main_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal handler: it only leaves the loop a note."""
        if self._loop is None or self._drain is not None:
            super().handle_exit(sig, frame)
            return
        self._loop.call_soon_threadsafe(self._begin, sig, frame)

    def _begin(self, sig: int, frame: FrameType | None) -> None:
        if self._drain is not None:
            return
        service = self.config.loaded_app.app.state.service
        self._drain = asyncio.ensure_future(drain(service.admission, service.engine, self._delay, self._timeout))
        self._drain.add_done_callback(lambda _: super(DrainingServer, self).handle_exit(sig, frame))
