"""Finished parts of long work, kept in files: read back, and refused where they are another work's.

A part is written whole by `models.files.replace_file`; what decides it is written into it, or into its name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.errors import CheckpointError

Model = TypeVar("Model", bound=BaseModel)


def kept_record(path: Path, kind: type[Model], what: str) -> Model | None:
    """The record that JSON in `path` holds; None where there is no file.

    Args:
        what: what it should hold, for the error.

    Raises:
        CheckpointError: the file holds something else.
    """
    if not path.exists():
        return None
    try:
        return kind.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise _unreadable(path, what, error) from error


def kept_tensors(path: Path, names: tuple[str, ...], what: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Tensors of these names, all where none is named, and metadata from safetensors in `path`; as `kept_record`."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            return {name: file.get_tensor(name) for name in names or file.keys()}, metadata
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, what, error) from error


def require_same(path: Path, kept: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise CheckpointError, naming each difference, unless what decided the part in `path` is what is asked now."""
    changed = [name for name in sorted(kept.keys() | asked.keys()) if kept.get(name) != asked.get(name)]
    if changed:
        lines = "; ".join(f"{name}: {kept.get(name)!r} -> {asked.get(name)!r}" for name in changed)
        raise CheckpointError(f"{path} belongs to another run ({lines}); choose another folder")


def _unreadable(path: Path, what: str, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} does not hold {what} ({error}); delete it, and it is made again")
