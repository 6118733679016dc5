"""The process that runs torchebm's sampler: it waits, and so costs nothing, while others have their turn."""

import pickle
import subprocess
from contextlib import suppress
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.langevin_cases import Case
from tests.benchmarks.processes import ROOT, BenchmarkError

TORCHEBM = "0.8.9"


class Torchebm:
    """torchebm's sampler on one case at a time, in the Python that has it; a context that ends the process.

    Raises:
        BenchmarkError: that Python is absent or has another torchebm; or later, the process ended.
    """

    def __init__(self, python: str) -> None:
        command = [python, "-m", "tests.benchmarks.torchebm_worker"]
        try:
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise _unusable(python, error.strerror or str(error)) from error
        found = "none"
        with suppress(BenchmarkError):
            found = self._answer()
        if found != TORCHEBM:
            self.close()
            raise _unusable(python, found)

    def prepare(self, case: Case, batch: int) -> Tensor:
        """Take up a problem; its dU/dx [B, C, H, W], as torchebm has it."""
        self._send((case.model_dump(), batch))
        return torch.from_numpy(self._answer())

    def run(self, steps: int) -> None:
        """That many steps on the problem taken up."""
        self._send(steps)
        self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> "Torchebm":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _send(self, request: Any) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the answer that does not come tells more
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)
        except EOFError:
            raise BenchmarkError(f"torchebm's process ended with exit code {self._process.wait()}") from None


def _unusable(python: str, found: str) -> BenchmarkError:
    return BenchmarkError(
        f"torchebm={python!r} must be a Python with torchebm {TORCHEBM}, found {found}; `make bench` makes it, "
        "and torchebm='' leaves it out"
    )
