"""How numbers are written on a page."""

import json
from collections.abc import Mapping
from textwrap import shorten
from typing import Any

DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def percent(value: float) -> str:
    """0.09 as `9.0 %`."""
    return f"{100 * value:.1f} %"


def signed(value: float, digits: int) -> str:
    """A number with its sign."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def plural(count: int, word: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def amount(count: float) -> str:
    """`950`, `12.3 k`, `4.56 M`: costs, whose later digits say nothing."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g}"


def duration(seconds: float) -> str:
    """`4.2 s`, `12 min 30 s`, `3 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def settings(configuration: Mapping[str, Any]) -> str:
    """`steps 50, eot 16`: a flat reading of a configuration."""
    parts = (f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in configuration.items())
    return ", ".join(parts)


def short(title: str) -> str:
    """A title that fits beside an axis."""
    return shorten(title, 34, placeholder=" …")
