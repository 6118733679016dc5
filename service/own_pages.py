"""Without keys, only web pages of the server's own may use it: whoever sits at the machine may open any other page too.

Two ways lead from a foreign page to a server that its reader's browser reaches: a form or a fetch that the page sends
across origins, and a name of the page's own that is made to resolve to the server's address (DNS rebinding). The first
is told by `Sec-Fetch-Site` and `Origin`, which scripts can not set, the second by the name in `Host`.
"""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.auth import METRICS, PUBLIC
from service.errors import AccessError
from service.problems import problem_response

# Browsers let any page follow a link, and show no page what another origin answers.
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SHOWN = 64


class OwnPagesOnly:
    """Answers 403 to foreign pages. Probes and metrics are left alone: they are asked for by names of clusters.

    Args:
        hosts: names that requests may be for, beside `localhost` and every IP address: those can not be rebound.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        names = {name for name in map(_name, hosts) if name and not _is_address(name)}
        self.app, self._hosts = app, names | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not get_route_path(scope).startswith((*PUBLIC, METRICS)):
            headers = Headers(scope=scope)
            try:
                self._check_host(headers)
                if scope["method"] not in SAFE_METHODS:
                    _check_origin(headers)
            except AccessError as error:
                await problem_response(Request(scope), error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        for host in headers.getlist("host"):  # a request without one is no browser's
            name = _name(host)
            if not (name in self._hosts or _is_address(name)):
                raise AccessError(
                    f"Host is {host[:SHOWN]}; a server without keys expects an IP address, "
                    f"{', '.join(sorted(self._hosts))}, or a name that --hosts lists"
                )


def _check_origin(headers: Headers) -> None:
    site, origin, host = (headers.get(name) for name in ("sec-fetch-site", "origin", "host"))
    if site is not None:  # old browsers, and those that call by a name over plain HTTP, send Origin alone
        own, given = site in ("same-origin", "none"), f"Sec-Fetch-Site is {site[:SHOWN]}"
    else:
        # Without the scheme: a proxy that ends TLS takes https away.
        own, given = origin is None or origin.partition("://")[2] == host, f"Origin is {(origin or '')[:SHOWN]}"
    if not own:
        raise AccessError(f"{given}; a server without keys takes requests of its own pages, and of programs, alone")


def _name(host: str) -> str:
    """The name or address in a Host header, without port, brackets, case and the root's dot; "" for nonsense."""
    try:
        return (urlsplit(f"//{host.strip()}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
