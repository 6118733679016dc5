"""Server processes to be measured: started on a free port, watched, and stopped with their children."""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from models.errors import LimpidError

ROOT = Path(__file__).parents[2]
START_SECONDS = 300.0
STOP_SECONDS = 60.0
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


class BenchmarkError(LimpidError):
    """A benchmark can not be run here, or what it measures broke."""


@dataclass(frozen=True)
class Server:
    """A server that answers: where it listens, and its process group."""

    host: str
    port: int
    group: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def resident(self) -> float:
        """MiB of memory of all its processes, shared pages counted in each; needs Linux's /proc."""
        pages = 0
        for status in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # a process that has just ended
                # After the name, which may hold anything but ends at the last ")": state, parent, group, ...
                fields = status.read_text().rpartition(")")[2].split()
                pages += int(fields[21]) if int(fields[2]) == self.group else 0
        return pages * PAGE_MIB


@contextmanager
def serving(command: Sequence[str], ready: str) -> Iterator[Server]:
    """Run `command`, which prints its URL, until GET `ready` answers 200; stop it at the end.

    Raises:
        BenchmarkError: it ended, or was not ready in time; the message has the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as output:
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
        try:
            yield _wait(process, log, ready)
        finally:
            _stop(process)


def _wait(process: "subprocess.Popen[bytes]", log: Path, ready: str) -> Server:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        match = re.search(r"http://([\w.]+):(\d+)", log.read_text())
        if match is not None:
            with suppress(httpx.TransportError):
                if httpx.get(match[0] + ready).status_code == 200:
                    return Server(match[1], int(match[2]), process.pid)
        time.sleep(0.1)
    raise BenchmarkError(
        f"the server was not ready within {START_SECONDS:g} s (exit code {process.poll()}):\n{log.read_text()[-2000:]}"
    )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):  # its group is gone when it ended its children
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
