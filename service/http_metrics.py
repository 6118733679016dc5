"""Counts every HTTP answer by route template, code and duration. Pure ASGI, as the other middleware."""

import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics
from service.middleware import CLIENT_CLOSED

UNKNOWN = "other"


class HttpMetrics:
    """Stands outside everything that may refuse a request, and inside RequestContext."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except ClientDisconnect:
            status = CLIENT_CLOSED
            raise
        finally:
            # Paths are endless and chosen by callers; templates are few.
            route = getattr(scope.get("route"), "path", UNKNOWN)
            self._metrics.answered(route, status, time.perf_counter() - started)
