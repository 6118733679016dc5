"""Server-sent events of one request: `queued`, `progress` while chains run, then `result` or `error`.

Whatever can be refused was refused before the stream began, as an ordinary problem document with its own status.
"""

import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, aclosing

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.answers import Answer, Outcomes
from service.errors import RequestError
from service.event_schemas import Progress, Queued
from service.following import follow
from service.intake import Work, settle
from service.problems import problem_document
from service.state import service_of

log = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
PROGRESS_SECONDS = 0.2
HEARTBEAT_SECONDS = 10.0
HEARTBEAT = ": working\n\n"


Compose = Callable[[Request, Work, Outcomes], Answer]
News = Callable[[], Sequence[tuple[str, BaseModel]]]
"""Further events, by name, since it was last asked."""


class EventStream(Response):
    """Holds what `stack` holds until the stream has ended, or its client has left.

    Not a StreamingResponse: that would compete for the disconnection, and leave closing its iterator to chance.

    Args:
        news: asked after each `progress`, and once more before `result`.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self, request: Request, work: Work, compose: Compose, stack: ExitStack, news: News = lambda: ()
    ) -> None:
        self._request, self._work, self._compose, self._stack, self._news = request, work, compose, stack, news
        self.status_code, self.background = 200, None
        self.init_headers({"Vary": "Accept", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._stack:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with aclosing(self._events()) as events:
                async for text in events:
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncGenerator[str, None]:
        try:
            with service_of(self._request).metrics.underway():
                yield _event("queued", self._queued())
                async with aclosing(self._progress()) as events:
                    async for text in events:
                        yield text
                result = await run_in_threadpool(self._result)
                for name, data in self._news():
                    yield _event(name, data)
                yield _event("result", result)
        except ClientDisconnect:
            raise
        except Exception as error:
            if not isinstance(error, RequestError):
                log.exception("a stream failed")
            yield _event("error", problem_document(self._request, error))

    def _queued(self) -> Queued:
        engine = service_of(self._request).engine
        # Whole seconds: more would tell callers of each other.
        estimate = math.ceil(engine.outstanding / engine.rate) if engine.rate > 0.0 else None
        return Queued(cost=self._work.cost, estimated_seconds=estimate)

    async def _progress(self) -> AsyncGenerator[str, None]:
        """What is new, at most every PROGRESS_SECONDS, and a comment after HEARTBEAT_SECONDS without news."""
        tickets, reported, last = self._work.tickets, 0, time.monotonic()
        total = sum(ticket.steps_total for ticket in tickets)
        async with aclosing(follow(self._request, tickets, self._work.deadline, PROGRESS_SECONDS)) as ticks:
            async for _ in ticks:
                done = sum(ticket.steps_done for ticket in tickets)
                if done != reported:
                    yield _event(
                        "progress", Progress(steps_done=done, steps_total=total, fraction=round(done / total, 4))
                    )
                elif time.monotonic() - last < HEARTBEAT_SECONDS:
                    continue
                else:
                    yield HEARTBEAT
                for name, data in self._news():
                    yield _event(name, data)
                reported, last = done, time.monotonic()

    def _result(self) -> Answer:
        return self._compose(self._request, self._work, settle(self._request, self._work))


def _event(name: str, data: BaseModel) -> str:
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n"
