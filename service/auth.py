"""Authentication: every request but a health probe needs a key, once keys are configured.

Pure ASGI and outside the routes, so that a new route is closed until somebody opens it, and no body is read first.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from service.errors import AccessError, UnknownCallerError
from service.keys import SCOPES, Key, Scope
from service.problems import problem_response

PUBLIC = ("/health/", "/v2/health/")
METRICS = "/metrics"
HOW = "send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"


@dataclass(frozen=True)
class Caller:
    """Who sent the request, as `request.state.caller`; the id is a key's, or `anonymous`."""

    id: str
    scopes: frozenset[Scope]


class Authentication:
    """Sets `request.state.caller` or answers 401 or 403. Stands inside RequestContext, which makes the request id.

    Args:
        keys: empty to let everybody in, as `anonymous`.
        insecure: whether everybody may be somebody on another machine, who must not do what needs the scope `admin`.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[Key], insecure: bool = False) -> None:
        self.app, self._keys = app, [(bytes.fromhex(key.sha256), Caller(key.id, key.granted)) for key in keys]
        self._anonymous = Caller("anonymous", SCOPES - {"admin"} if insecure else SCOPES)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = get_route_path(scope)  # what the router will match, whatever prefix the server is mounted at
        try:
            caller = scope["state"]["caller"] = self._identify(path, Headers(scope=scope))
            _check_scope(caller, path)
        except AccessError as error:
            await problem_response(Request(scope), error)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _identify(self, path: str, headers: Headers) -> Caller:
        if not self._keys:
            return self._anonymous
        if path.startswith(PUBLIC):
            return Caller("anonymous", frozenset())
        digest, known = sha256(_secret(headers)).digest(), None
        for expected, caller in self._keys:  # all of them, so that the time taken does not tell which one matched
            if hmac.compare_digest(digest, expected):
                known = caller
        if known is None:
            raise UnknownCallerError(f"the key is not one that this server knows; {HOW}")
        return known


def _secret(headers: Headers) -> bytes:
    """The one secret that the headers hold, as it was sent; raises UnknownCallerError for none, or two that differ."""
    given = {value.strip() for value in headers.getlist("x-api-key")}
    for value in headers.getlist("authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":
            raise UnknownCallerError(f"Authorization has another scheme than Bearer; {HOW}")
        given.add(token.strip())
    if not given:
        raise UnknownCallerError(f"a key is needed; {HOW}")
    if len(given) > 1:
        raise UnknownCallerError("the headers hold different keys; expected one")
    return given.pop().encode("latin-1")


def _check_scope(caller: Caller, path: str) -> None:
    needed: Scope = "metrics" if path == METRICS or path.startswith(METRICS + "/") else "infer"
    if needed not in caller.scopes and not path.startswith(PUBLIC):
        raise AccessError(
            f"{path[:64]} needs the scope {needed}, the key {caller.id} has {', '.join(sorted(caller.scopes))}"
        )
