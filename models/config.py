"""Configuration: frozen models filled from TOML, with overrides and errors that name the key."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from models.errors import ConfigError

T = TypeVar("T")


class Frozen(BaseModel):
    """A configuration section: immutable, unknown keys refused, infinities and NaN refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def read_toml(path: Path) -> dict[str, Any]:
    """The file's table; raises ConfigError with the line when it is not TOML, or with why it can not be read."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist") from error
    except OSError as error:
        raise ConfigError(f"{path} can not be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def apply_overrides(table: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `table` with each `a.b=value` set; a value is read as TOML, or else taken as a string."""
    result = json.loads(json.dumps(table))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"override {override!r}: expected key=value, for example training.batch_size=64")
        section = result
        *parents, last = key.strip().split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise ConfigError(f"override {override!r}: {parent!r} is a value, not a section")
        section[last] = _toml_value(text.strip())
    checked: dict[str, Any] = result
    return checked


def validate(kind: type[T] | TypeAdapter[T], table: Mapping[str, Any], source: str) -> T:
    """Fill `kind` from `table`; raises ConfigError with one line per wrong key."""
    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    try:
        return adapter.validate_python(table)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"]) or "(top level)"
            given = "" if item["type"] == "missing" else f", got {item['input']!r}"
            lines.append(f"  {key}: {item['msg']}{given}")
        raise ConfigError(f"{source}:\n" + "\n".join(lines)) from error


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
