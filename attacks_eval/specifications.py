"""The `key=value` pairs of an attack's specification, ours or another library's."""

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from attacks_eval.errors import QuestionError


def read_pairs(spec: str, pairs: Sequence[str]) -> dict[str, Any]:
    """The arguments `key=value` of a specification; raises QuestionError for anything else."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = (part.strip() for part in pair.partition("="))
        if not (key and separator and text) or key in arguments:
            raise QuestionError(f"{spec!r}: expected key=value, each key once; got {pair!r}")
        arguments[key] = _read_value(text)
    return arguments


def _read_value(text: str) -> Any:
    """TOML, a fraction such as 8/255, or else the text itself."""
    if match := re.fullmatch(r"(-?\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", text):
        above, below = (float(number) for number in match.groups())
        if below == 0:
            raise QuestionError(f"{text!r} divides by zero")
        return above / below
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
