"""Waiting for the engine, as long as the client stays and the deadline allows."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect, Request

from service.errors import DeadlineError
from service.jobs import Ticket


async def follow(
    request: Request, tickets: Sequence[Ticket], deadline: float, interval: float
) -> AsyncGenerator[None, None]:
    """Yield every `interval` seconds until all tickets are done, whatever came of them.

    Use it in `contextlib.aclosing`. Raises ClientDisconnect when the client leaves first, DeadlineError at `deadline`
    (time.monotonic() seconds); cancelling the tickets is left to whoever made them.
    """
    done = asyncio.gather(*(ticket.future for ticket in tickets), return_exceptions=True)
    gone = asyncio.ensure_future(_disconnection(request))
    awaited: set[asyncio.Future[Any]] = {done, gone}
    try:
        while True:
            seconds = min(interval, deadline - time.monotonic())
            await asyncio.wait(awaited, timeout=max(seconds, 0.0), return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return
            if gone.done():
                raise ClientDisconnect
            if time.monotonic() >= deadline:
                raise DeadlineError("the request's time was up while its chains ran")
            yield
    finally:
        for future in awaited:
            future.cancel()
            with suppress(asyncio.CancelledError):
                await future


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
