"""The console: a page for browsers at /, and its files below /web/.

They hold nothing of the bundle and need no key, so they are answered before anybody is asked for one.
"""

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.negotiation import choose

CONSOLE_FILES = "/web/"
PAGE = "/"
HTML = "text/html"
MEDIA_TYPES = {
    "html": HTML,
    "css": "text/css",
    "js": "text/javascript",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
}
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'"
)


@dataclass(frozen=True)
class File:
    """A file as it is sent; a browser asks each time whether it has changed, so that an upgrade is seen at once."""

    content: bytes
    media_type: str
    etag: str

    def answer(self, request_headers: Headers) -> Response:
        """The file, or 304 when the browser has it."""
        headers = {
            "ETag": self.etag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": POLICY,
            "Vary": "Accept",
        }
        known = {tag.strip().removeprefix("W/") for tag in request_headers.get("if-none-match", "").split(",")}
        if self.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def load_files() -> dict[str, File]:
    """Every file of the console by its path on the server; the page's own links are relative to /."""
    found = dict(_walk(files("service") / "web", CONSOLE_FILES))
    found[PAGE] = found.pop(CONSOLE_FILES + "index.html")
    return found


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, File]]:
    found = []
    for entry in folder.iterdir():
        suffix = entry.name.rpartition(".")[2]
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif suffix in MEDIA_TYPES:
            content = entry.read_bytes()
            etag = f'"{sha256(content).hexdigest()[:32]}"'
            found.append((prefix + entry.name, File(content, MEDIA_TYPES[suffix], etag)))
    return found


class Console:
    """Answers browsers that ask for a page at /; programs, which accept anything, get the index there."""

    def __init__(self, app: ASGIApp, files: dict[str, File]) -> None:
        self.app, self._files = app, files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = self.app
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            headers = Headers(scope=scope)
            file = self._wanted(get_route_path(scope), headers)
            app = self.app if file is None else file.answer(headers)
        await app(scope, receive, send)

    def _wanted(self, path: str, headers: Headers) -> File | None:
        index = path == PAGE and choose(headers.get("accept", ""), ("application/json", HTML)) != HTML
        return None if index else self._files.get(path)
