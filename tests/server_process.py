"""A real server process, for tests of the service and of its console."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import httpx

from tests.conftest import ZOO

ROOT = ZOO.parents[1]
DIGITS = ZOO / "digits-midrun"
Serve = Callable[..., AbstractContextManager[httpx.Client]]


@contextmanager
def serve_bundle(log: Path, *flags: str, **variables: str) -> Iterator[httpx.Client]:
    """A client of `python -m service` on the digits bundle, unless a flag names another.

    The server must stop cleanly and log no traceback.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LIMPID_")}
    environment |= {"OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, "-m", "service", "--bundle", str(DIGITS), "--port", "0", *flags]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            banner = process.stdout.readline()
            match = re.search(r"http://[\d.:]+", banner)
            assert match, f"no URL in {banner!r}; log:\n{log.read_text()}"
            with httpx.Client(base_url=match[0], timeout=30) as client:
                _wait_until_ready(client, process)
                yield client
        finally:
            process.terminate()
            process.wait(timeout=30)
    assert "Traceback" not in log.read_text(), log.read_text()
    assert "Application shutdown complete" in log.read_text()


def _wait_until_ready(client: httpx.Client, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if client.get("/health/ready").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the server did not become ready (exit code {process.poll()})")
