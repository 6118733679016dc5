"""Worker processes and their end."""

import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import os, time
from attacks_eval.pools import ProcessPool

if __name__ == "__main__":
    pool = ProcessPool(2)
    print(*{pool.executor.submit(os.getpid).result() for _ in range(20)}, flush=True)
    pool.executor.submit(time.sleep, 600).result()
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).parents[2]
    command = [sys.executable, str(script)]
    with subprocess.Popen(
        command, cwd=root, env={"PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        workers = [Path("/proc") / pid for pid in parent.stdout.readline().split()]
        assert workers
        assert all(worker.exists() for worker in workers)
        parent.kill()
    deadline = time.monotonic() + 30
    while any(_runs(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def _runs(process: Path) -> bool:
    """Neither gone nor a zombie that nobody has waited for."""
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
