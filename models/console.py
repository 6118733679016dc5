"""The terminal: consoles, progress bars with an ETA, argument types, and how a command ends."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from models.errors import LimpidError

# No markup: file names may hold brackets. No wrapping: pipes and logs want whole lines. Text in notebooks too, where
# rich's own output needs widgets and shows no bar without them.
console = Console(markup=False, highlight=False, soft_wrap=True, force_jupyter=False)
error_console = Console(markup=False, highlight=False, soft_wrap=True, stderr=True, force_jupyter=False)


@contextmanager
def progress_bar(description: str, total: int, completed: int = 0, on: Console = console) -> Iterator[Progress]:
    """A bar with counts, elapsed time and ETA; `progress.advance(progress.task_ids[0])` moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn())
    with Progress(*columns, *times, console=on) as progress:
        progress.add_task(description, total=total, completed=completed)
        yield progress


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def run_command(
    options: argparse.Namespace, interrupted: str = "interrupted; checkpoints and finished results are kept"
) -> int:
    """Call `options.run(options)`; returns 2 for an error that the user can correct, 130 when interrupted."""
    try:
        options.run(options)
    except LimpidError as error:
        error_console.print(f"error: {error}", style="red")
        return 2
    except KeyboardInterrupt:
        error_console.print(interrupted)
        return 130
    return 0
