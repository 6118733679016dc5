"""What a benchmark should show, and whether it did."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from models.console import console


def at_least(what: str, value: float | None, limit: float) -> dict[str, Any]:
    """The aim that `value` is `limit` or more; None, where nothing could be measured, misses it."""
    return {"what": what, "value": value, "aim": f">= {limit:g}", "met": value is not None and value >= limit}


def at_most(what: str, value: float | None, limit: float) -> dict[str, Any]:
    """The aim that `value` is `limit` or less; None misses it."""
    return {"what": what, "value": value, "aim": f"<= {limit:g}", "met": value is not None and value <= limit}


def show_aims(aims: Sequence[dict[str, Any]]) -> None:
    """Each aim beside what was measured."""
    table = Table("", "measured", "aim", "met")
    for aim in aims:
        value = "-" if aim["value"] is None else f"{aim['value']:.3g}"
        table.add_row(aim["what"], value, aim["aim"], "yes" if aim["met"] else "NO")
    console.print(table)
