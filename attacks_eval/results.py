"""Result files: JSON that holds the question, the answer, the commit and the command that remakes it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from models.errors import DataError


def read_result(path: Path, question: dict[str, Any], command: str) -> dict[str, Any]:
    """A new result, or the partial one in `path` when it answers the same question.

    Raises:
        DataError: `path` answers another question; nothing is overwritten.
    """
    if not path.exists():
        return {**question, "command": command, "commit": commit(), "torch": torch.__version__}
    result: dict[str, Any] = json.loads(path.read_text())
    different = [key for key in question if result.get(key) != question[key]]
    if different:
        raise DataError(
            f"{path} holds a result with another {', '.join(different)}; delete it, or choose another --out"
        )
    return result


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Replace `path` atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".partial")
    scratch.write_text(json.dumps(result, indent=2) + "\n")
    scratch.replace(path)


def commit() -> str:
    """The checkout's commit, with "+changes" when the tree differs from it; "unknown" outside a checkout."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent
    result = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return result.stdout.strip()
