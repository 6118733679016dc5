"""Connections: how many there may be, and how long one may stay open while no request of it is being answered."""

import asyncio
import logging
import resource
import uuid
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.errors import SettingsError
from service.problems import MEDIA_TYPE
from service.schemas import Problem

log = logging.getLogger(__name__)

OTHER_FILES = 128
"""What the process has open beside connections: the listener, the bundle, libraries, pipes."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 that drops connections which only occupy a place; uvicorn would let them stay for ever.

    `header_timeout` is in seconds. It counts from the first byte, or the beginning, of what is no complete request
    head, and for the rest of a body whose request was answered without it.
    """

    header_timeout: ClassVar[float]
    max_connections: ClassVar[int]

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            log.warning("%d connections are open: one more is closed", self.max_connections)
            transport.close()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with a problem document too; no application sees it."""
        problem = Problem(
            type="about:blank", title="Bad Request", status=400, detail=msg, instance="", request_id=uuid.uuid4().hex
        )
        body = problem.model_dump_json().encode()
        headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), "connection": "close"}
        response = h11.Response(status_code=400, headers=list(headers.items()), reason="Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._deadline is None:  # else it stays: a byte now and then wins no time
            self._deadline = self.loop.call_later(self.header_timeout, self.transport.close)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def bounded(header_timeout: float, max_connections: int) -> type[BoundedProtocol]:
    """The protocol with these limits, which is how uvicorn wants them."""
    return type(
        "BoundedProtocol", (BoundedProtocol,), {"header_timeout": header_timeout, "max_connections": max_connections}
    )


def reserve_files(max_connections: int) -> None:
    """Raise the process's limit of open files as the connections need; SettingsError when the system forbids it."""
    needed = max_connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"--max-connections {max_connections} needs {needed} open files, the system allows {hard}: "
                "lower it, or raise `ulimit -n`"
            ) from error
