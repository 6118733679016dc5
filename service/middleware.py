"""What happens around every request: its id, safe headers, one log line, and a problem document if all else fails.

Pure ASGI, because Starlette's BaseHTTPMiddleware hides a client's disconnection from the routes.
"""

import asyncio
import logging
import re
import time
import uuid
from contextlib import suppress

from starlette._utils import get_route_path
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.auth import PUBLIC
from service.console import CONSOLE_FILES
from service.problems import MAX_PATH, problem_response

access_log = logging.getLogger("service.access")
log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
CLIENT_CLOSED = 499  # nginx's code, for the log only
LINGER_SECONDS = 1.0
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Swagger's page starts itself with an inline script, carries its own styles and icons, and shows answers as blobs.
DOCS_PAGES = ("/docs", "/docs/oauth2-redirect")
DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'"
)


class RequestContext:
    """Sets `request.state.request_id`, `.started` and `.log`, fields for the log line; must be the outermost one."""

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
        scope.setdefault("state", {}).update(request_id=request_id, started=started, log={})
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
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
                if get_route_path(scope) in DOCS_PAGES:
                    headers["Content-Security-Policy"] = DOCS_POLICY
            await send(message)

        try:
            await self.app(scope, body.receive, send_with_headers)
        except ClientDisconnect:
            status = CLIENT_CLOSED
        except Exception as error:
            log.exception("request failed", extra={"fields": {"request_id": request_id}})
            if status is not None:
                raise
            await problem_response(Request(scope), error)(scope, body.receive, send_with_headers)
        finally:
            _log_access(scope, status, body.size)


class _Body:
    """The request's body, whether any and all of it was asked for, and its size so far in bytes."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._complete, self.begun, self.size = receive, False, False, 0

    async def receive(self) -> Message:
        self.begun = True
        message = await self._receive()
        self.size += len(message.get("body", b""))
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def discard(self, seconds: float) -> None:
        """Read on for a while: closing on unread data resets the connection before the client reads its answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._complete:
                    await self.receive()


def _log_access(scope: Scope, status: int | None, bytes_in: int) -> None:
    path = scope.get("raw_path", b"").decode("ascii", "backslashreplace")[:MAX_PATH] or "/"
    level = logging.DEBUG if path.startswith((*PUBLIC, CONSOLE_FILES)) else logging.INFO
    state, caller = scope["state"], scope["state"].get("caller")
    fields = {
        "request_id": state["request_id"],
        "key": caller and caller.id,
        "client": (scope.get("client") or (None,))[0],
        "method": scope["method"][:32],
        "path": path,
        "status": status,
        "bytes_in": bytes_in,
        "duration_ms": round(1000.0 * (time.perf_counter() - state["started"]), 1),
    }
    access_log.log(level, "request", extra={"fields": fields | state["log"]})
