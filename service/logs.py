"""Log lines: JSON for machines, text for terminals. `extra={"fields": {...}}` adds fields to a line.

Clients choose paths and parts of exceptions' messages, so no control character reaches a log as it is: nothing that
they send can begin a line of its own or steer a terminal.
"""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO


def configure_logging(level: str, kind: Literal["auto", "text", "json"], stream: TextIO) -> None:
    """Send every logger's lines, and Python's warnings, to `stream`. Programs call it once."""
    as_text = stream.isatty() if kind == "auto" else kind == "text"
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(True)


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, the fields, and the traceback as `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """`time LEVEL logger: message key=value`, and the traceback below it, indented."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())
        line = _visible(f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}{fields}")
        if not record.exc_info:
            return line
        trace = self.formatException(record.exc_info).split("\n")
        return "\n".join([line, *("    " + _visible(part) for part in trace)])


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _quoted(value: Any) -> str:
    text = "-" if value is None else str(value)
    return json.dumps(text) if not text or set(text) & set(' "=') else text


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
