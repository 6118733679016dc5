"""Annealing that can be stopped: step sizes and finished chunks are kept in a file, replaced atomically."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.config import Frozen
from models.evaluation.ais import Annealing, LogZ, Session, Walk, anneal_down, anneal_up, check_ends, tune
from models.evaluation.hamiltonian import Path as Between
from models.files import replace_file
from models.kept import kept_record, require_same

WALKS = "walks.json"


class _Kept(Frozen):
    """What decides the walks, and those that were finished."""

    identity: dict[str, Any]
    sizes: tuple[float, ...]
    walks: dict[str, Walk] = {}
    cpu_seconds: float = 0.0


def anneal(
    path: Between,
    shape: tuple[int, ...],
    ends: Tensor | None,
    config: Annealing,
    folder: Path,
    identity: Mapping[str, Any],
    device: torch.device,
    advance: Callable[[int], None],
) -> tuple[LogZ, LogZ | None]:
    """log Z from below, and from above when there are samples of the target, `ends` [N, ...], to start from.

    A folder that holds a part of it is continued to the same result.

    Args:
        identity: what else decides the result; plain values.

    Raises:
        DataError: an end lies outside the base's box.
        CheckpointError: the folder holds walks of another density or configuration.
    """
    if ends is not None:
        check_ends(config.base, ends)
    whole = json.loads(json.dumps({**identity, "annealing": config.model_dump()}))
    began = time.process_time()
    kept = kept_record(folder / WALKS, _Kept, "annealed walks") or _Kept(
        identity=whole, sizes=tuple(tune(path, shape, config, device))
    )
    require_same(folder / WALKS, kept.identity, whole)
    walks, lock = dict(kept.walks), threading.Lock()

    def finished(name: str, walk: Walk) -> None:
        with lock:
            walks[name] = walk
            spent = kept.cpu_seconds + time.process_time() - began
            now = kept.model_copy(update={"walks": walks, "cpu_seconds": spent})
            replace_file(folder / WALKS, now.model_dump_json().encode())

    session = Session(kept.walks, finished, advance)
    up = anneal_up(path, shape, config, kept.sizes, device, session)
    down = None if ends is None else anneal_down(path, ends, config, kept.sizes, session)
    return up, down


def annealing_seconds(folder: Path) -> float:
    """CPU seconds until the last walk in `folder` was finished, in all sessions; 0 where there is none."""
    kept = kept_record(folder / WALKS, _Kept, "annealed walks")
    return kept.cpu_seconds if kept else 0.0
