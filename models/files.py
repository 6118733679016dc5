"""Files that a reader sees whole or not at all, folders that one program writes, and which commit wrote them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from models.errors import FolderInUse


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write beside `path`, flush to disk, then rename: a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.partial")
    with scratch.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """No other program runs in `folder`, created when missing: two would overwrite each other's checkpoints.

    The lock is the operating system's, on `folder/.lock`, and falls with its program, however that ends.

    Raises:
        FolderInUse: another program is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise FolderInUse(f"{folder}: another program is at work in it; wait for its end or stop it") from error
    try:
        yield
    finally:
        lock.release()


def commit() -> str:
    """The checkout's commit, with "+changes" when its code differs; "unknown" outside a checkout."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no", "--", "*.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent.parent
    result = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return result.stdout.strip()
