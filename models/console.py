"""The terminal: one console, progress bars with an ETA, and how a command ends."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from models.errors import LimpidError

console = Console()


@contextmanager
def progress_bar(description: str, total: int, completed: int = 0) -> Iterator[Progress]:
    """A bar with counts, elapsed time and ETA; `progress.advance(progress.task_ids[0])` moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn())
    with Progress(*columns, *times, console=console) as progress:
        progress.add_task(description, total=total, completed=completed)
        yield progress


def run_command(options: argparse.Namespace) -> int:
    """Call `options.run(options)`; returns 2 for an error that the user can correct, 130 when interrupted."""
    try:
        options.run(options)
    except LimpidError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted; what was written so far is kept, and the same command can continue from it")
        return 130
    return 0
