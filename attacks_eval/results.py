"""Result files: JSON that holds the question, the answer, the commit and the command that remakes it."""

import json
from pathlib import Path
from typing import Any

import torch

from attacks_eval.errors import ResultError
from models.files import commit, replace_file


def read_result(path: Path, question: dict[str, Any], command: str) -> dict[str, Any]:
    """A new result, or the partial one in `path` when it answers the same question.

    Raises:
        ResultError: `path` is damaged or answers another question; nothing is overwritten.
    """
    if not path.exists():
        return {**question, "command": command, "commit": commit(), "torch": torch.__version__}
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        different = [key for key in question if result.get(key) != question[key]]
    except (ValueError, AttributeError) as error:
        raise ResultError(f"{path} is not a result file: {error}") from error
    if different:
        raise ResultError(
            f"{path} holds a result with another {', '.join(different)}; delete it, or choose another --out"
        )
    return result | {"command": command}


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Replace `path` whole."""
    replace_file(path, (json.dumps(result, indent=2) + "\n").encode())
