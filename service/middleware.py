"""What happens around every request: its id, safe headers, one log line, and a problem document if all else fails.

Pure ASGI, because Starlette's BaseHTTPMiddleware hides a client's disconnection from the routes.
"""

import asyncio
import logging
import re
import time
import uuid
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem_response

access_log = logging.getLogger("service.access")
log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
CLIENT_CLOSED = 499  # nginx's code, for the log only
LINGER_SECONDS = 1.0


class RequestContext:
    """Sets `request.state.request_id` and `.started`, and must be the outermost middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_headers, body = Headers(scope=scope), _Body(receive)
        given = request_headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        started = time.perf_counter()
        scope.setdefault("state", {}).update(request_id=request_id, started=started)
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # A client that announced `Expect: 100-continue` and was not told to continue sends no body.
                if status >= 400 and (body.begun or "expect" not in request_headers):
                    await body.discard(LINGER_SECONDS)
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Cache-Control"] = "no-store"
            await send(message)

        try:
            await self.app(scope, body.receive, send_with_headers)
        except ClientDisconnect:
            status = status or CLIENT_CLOSED
        except Exception as error:
            log.exception("request %s failed", request_id)
            if status is not None:
                raise
            await problem_response(Request(scope), error)(scope, body.receive, send_with_headers)
        finally:
            _log_access(scope, status, started, request_id)


class _Body:
    """The request's body, and whether any and all of it was asked for."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._complete, self.begun = receive, False, False

    async def receive(self) -> Message:
        self.begun = True
        message = await self._receive()
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def discard(self, seconds: float) -> None:
        """Read on for a while: closing on unread data resets the connection before the client reads its answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._complete:
                    await self.receive()


def _log_access(scope: Scope, status: int | None, started: float, request_id: str) -> None:
    path = scope.get("raw_path", b"").decode("ascii", "backslashreplace") or "/"
    level = logging.DEBUG if path.startswith("/health/") else logging.INFO
    client = (scope.get("client") or ("-",))[0]
    milliseconds = 1000.0 * (time.perf_counter() - started)
    access_log.log(
        level, "%s %s %s %s %.1fms %s", client, scope["method"], path, status or "-", milliseconds, request_id
    )
