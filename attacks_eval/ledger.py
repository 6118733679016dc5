"""The ledger of an evaluation: finished pieces of work, appended one by one, so that a killed run loses only the piece
it was at.

FOLDER/ledger.jsonl      the question on the first line, then one line a finished piece
FOLDER/adversarial.bin   the pieces' images, float32, one after the other; a line says where its own begins
"""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attacks_eval.defence import Cost
from attacks_eval.errors import ResultError

Key = tuple[str | int, ...]


class Spent(NamedTuple):
    """Energy gradients of one image, steps pulled back through, wall seconds."""

    image_steps: int
    backward_steps: int
    seconds: float


class Ledger:
    """Opens or starts a folder's ledger.

    Every line also says what was spent since the one before, so the lines add up to the cost of the whole, kills and
    resumes included.

    Args:
        cost: counts the work under way.
        question: everything that the answers depend on; a folder that holds another question is refused.

    Raises:
        ResultError: the folder holds a run and `resume` is False, answers another question, or is damaged.
    """

    def __init__(self, folder: Path, question: dict[str, Any], resume: bool, cost: Cost) -> None:
        self._cost, self._spent, self._since = cost, replace(cost), time.perf_counter()
        self.lines, self.images = folder / "ledger.jsonl", folder / "adversarial.bin"
        self.question: dict[str, Any] = json.loads(json.dumps(question))
        self.entries: dict[Key, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if not self.lines.exists():
            self.images.unlink(missing_ok=True)
            self._append(self.lines, _line({"question": self.question}))
        elif not resume:
            raise ResultError(f"{self.lines} holds an evaluation; continue it with --resume, or choose another --out")
        else:
            self._read()

    def get(self, *key: str | int) -> dict[str, Any] | None:
        """A finished piece's payload, or None."""
        return self.entries.get(key)

    def add(self, key: Key, payload: dict[str, Any], image: Tensor | None = None) -> None:
        """Record a finished piece, and its image; both are on disk when this returns."""
        if image is not None:
            values = image.detach().cpu().contiguous().numpy().astype(np.float32)
            offset = self.images.stat().st_size if self.images.exists() else 0
            self._append(self.images, values.tobytes())
            payload = payload | {"image_at": offset, "image_shape": list(values.shape)}
        payload = payload | {"spent": self._lap()}
        self._append(self.lines, _line({"key": list(key), **payload}))
        self.entries[key] = payload

    def begin_session(self, commit: str) -> None:
        """Note which code writes from here on."""
        self.add(("session", sum(key[0] == "session" for key in self.entries)), {"commit": commit})

    def commits(self) -> list[str]:
        """The commits whose code wrote pieces, in order, each once."""
        written = [str(entry["commit"]) for key, entry in self.entries.items() if key[0] == "session"]
        return list(dict.fromkeys(written))

    def spent(self, *prefix: str | int) -> Spent:
        """What the pieces whose key begins with `prefix` cost together; all pieces without one."""
        laps = [entry["spent"] for key, entry in self.entries.items() if key[: len(prefix)] == prefix]
        return Spent(*(sum(lap[part] for lap in laps) for part in range(3)))

    def _lap(self) -> Spent:
        now, before, since = replace(self._cost), self._spent, self._since
        self._spent, self._since = now, time.perf_counter()
        return Spent(
            now.image_steps - before.image_steps,
            now.backward_steps - before.backward_steps,
            round(self._since - since, 3),
        )

    def image(self, *key: str | int) -> Tensor:
        """The image of a finished piece."""
        entry = self.entries[key]
        shape = entry["image_shape"]
        try:
            values = np.fromfile(self.images, np.float32, int(np.prod(shape)), offset=entry["image_at"])
        except OSError as error:
            raise ResultError(f"{self.images}: {error}") from error
        if values.size != np.prod(shape):
            raise ResultError(f"{self.images} is cut short: the image of {'/'.join(map(str, key))} is not in it")
        return torch.from_numpy(values.reshape(shape))

    def _read(self) -> None:
        content = self.lines.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # a line that a killed process left half written
            os.truncate(self.lines, len(whole))
        try:
            first, *rest = [json.loads(line) for line in whole.splitlines()]
            stored = first["question"]
            self.entries = {tuple(entry.pop("key")): entry for entry in rest}
        except (ValueError, KeyError) as error:
            raise ResultError(f"{self.lines} is damaged: {error}") from error
        asked = self.question
        if different := sorted(k for k in {*asked, *stored} if asked.get(k) != stored.get(k)):
            raise ResultError(
                f"{self.lines} answers another question ({', '.join(different)} differ); choose another --out"
            )

    @staticmethod
    def _append(path: Path, content: bytes) -> None:
        with path.open("ab") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
