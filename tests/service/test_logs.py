"""Log lines: what they hold, and that nothing a client sends can forge one."""

import asyncio
import io
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.logs import JsonFormatter, TextFormatter, configure_logging
from service.middleware import RequestContext

EVIL = 'x\n{"level": "info"}\r\x1b[31m\u2028y'


def record(message: str, fields: dict[str, Any] | None = None, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("service.test", logging.WARNING, __file__, 1, "%s", (message,), info)
    made.created = 0.25
    if fields is not None:
        made.fields = fields
    return made


def raised(message: str) -> BaseException:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


def test_a_json_line_holds_the_message_and_the_fields() -> None:
    line = json.loads(JsonFormatter().format(record("done", {"steps": 3, "path": Path("a")})))
    assert line == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "warning",
        "logger": "service.test",
        "message": "done",
        "steps": 3,
        "path": "a",
    }


def test_a_text_line_holds_the_same() -> None:
    line = TextFormatter().format(record("done", {"steps": 3, "name": 'a "b" c=d', "empty": "", "none": None}))
    assert line == ('1970-01-01T00:00:00.250Z WARNING service.test: done steps=3 name="a \\"b\\" c=d" empty="" none=-')


def test_json_is_one_line_whatever_is_in_it() -> None:
    text = JsonFormatter().format(record(EVIL, {"path": EVIL}, raised(EVIL)))
    assert text.isprintable()
    line = json.loads(text)
    assert line["message"] == line["path"] == EVIL
    assert "Traceback" in line["exception"]
    assert EVIL in line["exception"]


def test_text_begins_one_line_a_record_and_indents_the_traceback() -> None:
    text = TextFormatter().format(record(EVIL, {"path": EVIL}, raised(EVIL)))
    first, *others = text.split("\n")
    assert first.startswith("1970")
    assert all(line.isprintable() for line in (first, *others))
    assert all(line.startswith("    ") for line in others)
    assert text.splitlines() == [first, *others]
    assert others[0] == "    Traceback (most recent call last):"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "stream", "formatter"),
    [
        ("auto", Terminal(), TextFormatter),
        ("auto", io.StringIO(), JsonFormatter),
        ("json", Terminal(), JsonFormatter),
        ("text", io.StringIO(), TextFormatter),
    ],
)
def test_the_format_follows_the_terminal_unless_it_is_set(
    kind: Any, stream: io.StringIO, formatter: type[logging.Formatter], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    try:
        configure_logging("debug", kind, stream)
    finally:
        logging.captureWarnings(False)
    (handler,) = root.handlers
    assert type(handler.formatter) is formatter
    root.debug("seen")
    assert "seen" in stream.getvalue()


def test_a_server_logs_json_with_one_access_line_a_request(serve: Callable[..., Any], tmp_path: Path) -> None:
    log, forged = tmp_path / "log", "/no/a%0a%7B%22level%22:%22info%22%7D%1b"
    with serve(log) as client:
        sent = {"X-Request-ID": "mine"}
        assert client.post(f"{forged}?secret=1", content=b"12345", headers=sent).status_code == 404
        assert client.get("/nowhere/" + "x" * 20_000).status_code == 404
        sent = {"X-Request-ID": "b\tad {}", "X-Forwarded-For": 'x"}\t{"level": "info'}
        assert client.get("/", headers=sent).status_code == 200
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)
    first, long, second = (line for line in lines if line["logger"] == "service.access")
    assert first.pop("time") < second["time"]
    assert first.pop("duration_ms") >= 0
    assert first == {
        "level": "info",
        "logger": "service.access",
        "message": "request",
        "request_id": "mine",
        "key": "anonymous",
        "client": "127.0.0.1",
        "method": "POST",
        "path": forged,
        "status": 404,
        "bytes_in": 5,
    }
    assert long["path"] == "/nowhere/" + "x" * 247
    assert re.fullmatch("[0-9a-f]{32}", second["request_id"])
    assert "secret" not in log.read_text()


def test_what_a_route_logs_joins_the_access_line(caplog: pytest.LogCaptureFixture) -> None:
    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        Request(scope).state.log.update(steps=25, outcome="ok")
        await Response("x")(scope, receive, send)

    async def run() -> None:
        transport = httpx.ASGITransport(RequestContext(route))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await client.get("/", headers={"X-Request-ID": "mine"})

    with caplog.at_level(logging.INFO, "service.access"):
        asyncio.run(run())
    (line,) = (json.loads(JsonFormatter().format(made)) for made in caplog.records if made.name == "service.access")
    assert (line["request_id"], line["steps"], line["outcome"], line["key"]) == ("mine", 25, "ok", None)
