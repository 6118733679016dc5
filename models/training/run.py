"""A training run's folder: recipe, checkpoint, metrics and pictures, and how a killed run picks up again.

runs/NAME/
  recipe.json       the resolved recipe
  checkpoint.pt     weights, average, optimizer, bank, random state; replaced atomically
  history/          averaged weights of earlier updates, where the recipe keeps them
  metrics.jsonl     one line a logged update
  tensorboard/      the same numbers for TensorBoard
  diagnostics.html  how learning goes, with the pictures beside it
"""

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save as save_safetensors
from torch import Tensor

from models.config import Frozen
from models.console import console
from models.errors import CheckpointError
from models.files import replace_file
from models.training.distributed import ALONE, World

State = dict[str, Any]
HISTORY = "history"
METRICS = "metrics.jsonl"


def save_checkpoint(path: Path, state: State) -> None:
    """Write a training state whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    replace_file(path, buffer.getbuffer())


def load_checkpoint(path: Path) -> State:
    """A training state (tensors and plain values only); raises CheckpointError when it cannot be read."""
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; a run's checkpoint is RUN/checkpoint.pt") from error
    except Exception as error:  # torch.load raises many unrelated classes on a damaged file
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error
    if not isinstance(state, dict) or "recipe" not in state:
        raise CheckpointError(f"{path} was not written by `python -m models train`")
    return state


def load_trained(path: Path, kind: str) -> tuple[State, dict[str, Any]]:
    """A checkpoint and its recipe; raises CheckpointError when a recipe of another kind trained it."""
    state = load_checkpoint(path)
    recipe: dict[str, Any] = json.loads(state["recipe"])
    if recipe["kind"] != kind:
        raise CheckpointError(f"{path} was trained by a recipe of kind {recipe['kind']!r}, expected {kind!r}")
    return state, recipe


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Every line that the run in `folder` logged, oldest first; none when it logged nothing."""
    path = folder / METRICS
    lines = path.read_text().splitlines() if path.exists() else []
    if lines and not lines[-1].endswith("}"):  # a killed run may leave half a line
        lines.pop()
    return [json.loads(line) for line in lines]


def kept_weights(folder: Path) -> dict[int, Path]:
    """The averaged weights that the run in `folder` kept, by their update, oldest first."""
    return {int(path.stem): path for path in sorted((folder / HISTORY).glob("*.safetensors"))}


class TrainingRun:
    """Folder, metrics and progress of one run.

    Args:
        folder: created when missing; an earlier run in it is an error unless `resume`.
        recipe: what the run does; a resumed run must have the same one, unless `amend` records the change.
        world: the processes that train together, of which the leading one writes.
    """

    def __init__(self, folder: Path, recipe: Frozen, resume: bool, amend: bool = False, world: World = ALONE) -> None:
        self.folder, self.recipe, self._amend, self._world = folder, recipe, amend, world
        self.checkpoint = folder / "checkpoint.pt"
        if self.checkpoint.exists() and not resume:
            raise CheckpointError(f"{folder} already holds a run; pass --resume to continue it or choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        self._cpu_seconds_before = 0.0
        self._cpu_start = time.process_time()
        self._writer: Any = None
        self._unsaved: State | None = None

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all threads of the leading process spent on this run, earlier sessions included."""
        return self._cpu_seconds_before + time.process_time() - self._cpu_start

    def restore(self) -> State | None:
        """The saved state, or None for a fresh run; drops metrics and weights written after that state."""
        state = load_checkpoint(self.checkpoint) if self.checkpoint.exists() else None
        amendments: list[Any] = []
        update = 0
        if state is not None:
            amendments = list(state["amendments"])
            changed = _differences(self._read_again(state["recipe"]), self.recipe.model_dump(mode="json"))
            if changed and not self._amend:
                raise CheckpointError(
                    f"{self.folder} was trained with another recipe ({'; '.join(changed)}); "
                    "use the same one, or pass --amend to record the change"
                )
            update = state["update"]
            if changed:
                amendments.append({"update": update, "changed": changed})
                self._unsaved = {**state, "recipe": self.recipe.model_dump_json(), "amendments": amendments}
            self._cpu_seconds_before = state["cpu_seconds"]
        self._amendments = amendments
        if not self._world.leads:
            return state
        self._open_metrics(update)
        for later in (path for number, path in kept_weights(self.folder).items() if number > update):
            later.unlink()
        (self.folder / "recipe.json").write_text(self.recipe.model_dump_json(indent=2) + "\n")
        return state

    def save(self, update: int, state: Mapping[str, Any]) -> State:
        """Checkpoint after `update`, with the recipe and the CPU time so far; returns what it holds."""
        own = {
            "recipe": self.recipe.model_dump_json(),
            "amendments": self._amendments,
            "update": update,
            "cpu_seconds": self.cpu_seconds,
        }
        self._unsaved = None
        if self._world.leads:
            self._writer.flush()
            save_checkpoint(self.checkpoint, {**state, **own})
        return {**state, **own}

    def keep(self, update: int, weights: Mapping[str, Tensor]) -> None:
        """Leave a network's weights in the run's history."""
        if self._world.leads:
            content = save_safetensors({name: value.contiguous() for name, value in weights.items()})
            replace_file(self.folder / HISTORY / f"{update:08}.safetensors", content)

    def log(self, update: int, values: Mapping[str, float], echo: bool = True) -> None:
        """Append to metrics.jsonl and TensorBoard, and print one line when `echo`."""
        if not self._world.leads:
            return
        line = json.dumps({"update": update, **values, "cpu_seconds": round(self.cpu_seconds, 1)})
        with (self.folder / METRICS).open("a") as stream:
            stream.write(line + "\n")
        for key, value in values.items():
            self._writer.add_scalar(key, value, update)
        if echo:
            shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
            console.print(f"{update:>7}  {shown}")

    def close(self) -> None:
        """At a good end: write out what TensorBoard's writer still holds, and the amendment of a finished run."""
        if self._unsaved is not None and self._world.leads:
            save_checkpoint(self.checkpoint, self._unsaved)
        if self._writer is not None:
            self._writer.close()

    def metrics(self) -> list[dict[str, float]]:
        """Every logged line, oldest first."""
        return read_metrics(self.folder)

    def _read_again(self, recipe: str) -> Any:
        """A saved recipe as this version reads it, with today's defaults for keys that it did not have."""
        try:
            return type(self.recipe).model_validate_json(recipe).model_dump(mode="json")
        except ValidationError:
            return json.loads(recipe)

    def _open_metrics(self, update: int) -> None:
        # Imported here: TensorBoard takes a second, and only training has it installed.
        from torch.utils.tensorboard import SummaryWriter

        kept = [line for line in self.metrics() if line["update"] <= update]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        replace_file(self.folder / METRICS, text.encode())
        self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=update + 1)


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(old.keys() | new.keys())
        return [
            line for name in names for line in _differences(old.get(name), new.get(name), f"{key}.{name}".strip("."))
        ]
    return [] if old == new else [f"{key}: {old!r} -> {new!r}"]
