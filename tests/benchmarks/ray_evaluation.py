"""An evaluation in one process and over Ray: the same verdicts and pixels.

`python -m tests.benchmarks.ray_evaluation`: the quick plan on digits; exit status 1 when they differ.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from models.console import console
from tests.benchmarks.processes import ROOT, BenchmarkError
from tests.ray_cluster import ENVIRONMENT, local_cluster

DIGITS = ROOT / "models" / "zoo" / "digits-midrun"


def main() -> int:
    """Run both, and compare every verdict and every adversarial image."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ray_evaluation", description=main.__doc__)
    parser.add_argument("--preset", default="quick", help="the plan (default %(default)s)")
    parser.add_argument("--images", type=int, default=40, help="default %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(folder / "one", options)
        with local_cluster(folder, "--include-dashboard=false") as cluster:
            _run(folder / "ray", options, f"--ray={cluster.address}")
        verdicts = [_verdicts(folder / each) for each in ("one", "ray")]
        with np.load(folder / "one" / "adv.npz") as one, np.load(folder / "ray" / "adv.npz") as other:
            pixels = one.files == other.files and all(np.array_equal(one[key], other[key]) for key in one.files)
        different = sum(verdicts[0].get(key) != verdicts[1].get(key) for key in verdicts[0].keys() | verdicts[1].keys())
        console.print(
            f"{len(verdicts[0])} pieces in one process, {len(verdicts[1])} over Ray, {different} differ; "
            f"adversarial images {'equal to the last bit' if pixels else 'DIFFER'}",
            style="bold",
        )
        return int(bool(different) or not pixels)


def _run(out: Path, options: argparse.Namespace, *more: str) -> None:
    command = [
        *(sys.executable, "-m", "attacks_eval", "run", f"--bundle={DIGITS}", f"--preset={options.preset}"),
        *("--budget=40", f"--images={options.images}", f"--out={out}", *more),
    ]
    started = time.monotonic()
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(done.stderr)
    worst = next(line for line in done.stdout.splitlines() if line.startswith("worst case"))
    console.print(f"{'over Ray' if more else 'one process'}: {time.monotonic() - started:.1f} s; {worst}")


def _verdicts(folder: Path) -> dict[tuple[str | int, ...], Any]:
    """What the ledger holds, but for its costs, its sessions, and the probe's speed."""
    entries = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()[1:]]
    left_out = ("key", "spent", "image_at")
    found = {tuple(entry["key"]): {k: v for k, v in entry.items() if k not in left_out} for entry in entries}
    return {key: value for key, value in found.items() if key[0] not in ("session", "gradients")}


if __name__ == "__main__":
    sys.exit(main())
