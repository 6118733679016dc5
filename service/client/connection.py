"""How both clients reach the service."""

from typing import Any

import httpx2

from service import __version__
from service.client.errors import InputError

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 300.0
"""Without a byte of the answer; a service's own limit is shorter, unless its operator raised it."""
MARGIN_SECONDS = 10.0
"""Beyond what the service may take: for the way there and back."""
STREAM_SECONDS = 35.0
"""A stream is never silent for longer than ten."""
MOST_EVENT_BYTES = 512 * 2**20


def settings(url: str, api_key: str | None) -> dict[str, Any]:
    """Arguments of httpx's clients; raises InputError for an address or a key that can not be."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise InputError(f"url {url!r}: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"url {url!r}: expected an address such as http://127.0.0.1:8000")
    headers = {"User-Agent": f"limpid/{__version__}"}
    if api_key is not None:
        if not api_key.isascii() or not api_key.isprintable() or not api_key:
            raise InputError("the API key has characters that no header can hold, or none at all")
        headers["X-API-Key"] = api_key
    return {"base_url": parsed, "headers": headers, "timeout": _timeout(ANSWER_SECONDS)}


def answer_timeout(seconds: float | None) -> httpx2.Timeout:
    """For a request that the service may take so many seconds for."""
    return _timeout(ANSWER_SECONDS if seconds is None else seconds + MARGIN_SECONDS)


def stream_timeout() -> httpx2.Timeout:
    """For a stream of events."""
    return _timeout(STREAM_SECONDS)


def _timeout(read: float) -> httpx2.Timeout:
    return httpx2.Timeout(CONNECT_SECONDS, read=read, write=MARGIN_SECONDS * 3, pool=None)
