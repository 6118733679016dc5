"""What a batch run is asked: everything that its output depends on, written beside the output."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from models.bundle import Runtime
from models.config import Frozen
from models.errors import CheckpointError, ConfigError
from models.files import replace_file
from models.kept import require_same
from models.manifest import Manifest
from service.answer_arguments import MOST_SEED, parse_options, with_flags
from service.auth import Caller
from service.errors import RequestError
from service.keys import SCOPES
from service.options import ClassifyOptions, PurifyOptions
from service.parameters import Plan, plan_classification, plan_purification
from service.settings import Settings

Task = Literal["classify", "purify"]
Format = Literal["jsonl", "parquet", "png"]

FORMATS: dict[Task, tuple[Format, ...]] = {"classify": ("jsonl", "parquet"), "purify": ("png", "parquet")}
"""What each task can be written as; the first is the default."""
QUESTION = "question.json"


class Question(Frozen):
    """Everything that decides an output folder's content, but for the last bits that differ between kinds of machines.

    Args:
        options: as a request would give them; a seed is not among them.
        bundle: the digest of the bundle.
        source: the digest of the source's names, sizes, times and cuts; of `images` images in `parts` parts.
        slots: chains that one core, or a GPU, moves together: kernels for other numbers round otherwise.
    """

    task: Task
    format: Format
    options: dict[str, Any]
    bundle: str
    runtime: Runtime
    device: Literal["cpu", "cuda"]
    slots: int
    seed: int
    source: str
    images: int
    parts: int
    part_size: int
    max_pixels: int

    def plan(self, manifest: Manifest) -> Plan:
        """See `plan_task`."""
        return plan_task(self.task, self.options, manifest)


def plan_task(task: Task, options: Mapping[str, Any], manifest: Manifest) -> Plan:
    """What is asked of the engine for each image, within the bounds that the service has by default.

    Raises:
        ConfigError: an option is unknown, malformed or out of bounds.
    """
    caller, settings = Caller("command line", SCOPES), Settings()
    try:
        if task == "classify":
            return plan_classification(parse_options(ClassifyOptions, options), manifest, settings, caller)
        return plan_purification(parse_options(PurifyOptions, options), manifest, settings, caller)
    except RequestError as error:
        raise ConfigError(with_flags(error.detail)) from error


def kept_seed(folder: Path, asked: int | None) -> int:
    """The seed that was asked for, else the one that the folder's output was begun with, else one nobody knows yet."""
    if asked is not None:
        return asked
    kept = _kept(folder / QUESTION)
    return secrets.randbelow(MOST_SEED) if kept is None else int(kept["seed"])


def settle_question(folder: Path, question: Question) -> None:
    """Write the question into the folder, or find it there; raises CheckpointError when it holds another one."""
    path, asked = folder / QUESTION, question.model_dump(mode="json")
    kept = _kept(path)
    if kept is None:
        replace_file(path, (json.dumps(asked, indent=2) + "\n").encode())
    else:
        require_same(path, kept, asked)


def _kept(path: Path) -> dict[str, Any] | None:
    try:
        kept = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}); it says what its folder's output answers") from error
    if not isinstance(kept, dict) or "seed" not in kept:
        raise CheckpointError(f"{path} does not say what its folder's output answers")
    return kept
