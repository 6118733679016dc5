"""A Ray cluster of this machine, for tests and demonstrations."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
START_SECONDS = 120.0
# No word to Ray's makers, no colours in what is parsed, and an import path that every worker inherits.
ENVIRONMENT = os.environ | {
    **{"RAY_USAGE_STATS_ENABLED": "0", "RAY_COLOR_PREFIX": "0", "OMP_NUM_THREADS": "1"},
    "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
}


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs: its address, and the process that the others descend from."""

    address: str
    pid: int

    def processes(self, title: str) -> list[int]:
        """The ids of its processes whose titles begin so, such as `ray::ServeReplica`; needs Linux's /proc."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # a process that has just ended
                if (path / "cmdline").read_bytes().startswith(title.encode()) and self._began(int(path.name)):
                    found.append(int(path.name))
        return found

    def _began(self, pid: int) -> bool:
        while pid not in (0, 1, self.pid):
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return pid == self.pid


@contextmanager
def local_cluster(folder: Path, *options: str, cpus: int = 2) -> Iterator[Cluster]:
    """A cluster that listens on 127.0.0.1 alone, and ends with all its processes.

    Args:
        folder: for the log; Ray's own go to its temporary folder.
        options: more flags of `ray start`.
    """
    port = free_port()
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address=127.0.0.1"),
        *(f"--port={port}", f"--num-cpus={cpus}", "--object-store-memory=100000000", *options),
    ]
    log = folder / "ray.log"
    with (
        log.open("w") as stream,
        subprocess.Popen(command, env=ENVIRONMENT, stdout=stream, stderr=stream, start_new_session=True) as process,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while "Ray runtime started" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield Cluster(f"127.0.0.1:{port}", process.pid)
        finally:
            process.terminate()  # `--block` ends its processes with it
            process.wait(timeout=60)


def free_port() -> int:
    """A port nobody listens on, outside those that Ray gives to its workers."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        if not 10002 <= port <= 19999:
            return port
