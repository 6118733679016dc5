"""Become `python ARGUMENTS...`, with as many OpenMP threads as the container may use CPUs: `start.py ARGUMENTS...`.

PyTorch counts the machine's CPUs and does not see a container's quota, so that in a container of 2 CPUs on a machine of
64 it would start 64 threads which take turns. A value of OMP_NUM_THREADS that is there already stands.
"""

import math
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
VARIABLE = "OMP_NUM_THREADS"


def cpu_quota(cgroup: Path) -> float | None:
    """CPUs that the control group allows, version 2 or 1; None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except FileNotFoundError:
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except FileNotFoundError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def threads(cgroup: Path, cpus: int) -> int:
    """Whole CPUs for this process: those that it may run on, or its share of their time where that is less."""
    quota = cpu_quota(cgroup)
    return cpus if quota is None else max(1, min(cpus, math.floor(quota)))


def main() -> None:
    """Replace this process, so that signals reach the program itself."""
    os.environ.setdefault(VARIABLE, str(threads(CGROUP, len(os.sched_getaffinity(0)))))
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    main()
