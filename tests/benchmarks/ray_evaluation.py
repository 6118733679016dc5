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
LOSSES = ("early_loss", "late_loss")


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
        one, ray = (_pieces(folder / each) for each in ("one", "ray"))
        with np.load(folder / "one" / "adv.npz") as a, np.load(folder / "ray" / "adv.npz") as b:
            pixels = a.files == b.files and all(np.array_equal(a[key], b[key]) for key in a.files)
    different = sum(one.get(key, {}).get("rest") != ray.get(key, {}).get("rest") for key in one.keys() | ray.keys())
    losses = [
        abs(x - y)
        for key in one.keys() & ray.keys()
        for x, y in zip(one[key]["losses"], ray[key]["losses"], strict=True)
    ]
    console.print(
        f"{len(one)} pieces in one process, {len(ray)} over Ray: {different} verdicts differ; adversarial images "
        f"{'equal to the last bit' if pixels else 'DIFFER'}; recorded losses differ by at most {max(losses):.1e}",
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


def _pieces(folder: Path) -> dict[tuple[str | int, ...], dict[str, Any]]:
    """What the ledger holds, but for its costs, its sessions, and the probe's speed.

    Losses that a search notes for its diagnosis are apart: they depend in the last digit on the searches beside it.
    """
    found = {}
    for line in (folder / "ledger.jsonl").read_text().splitlines()[1:]:
        entry = json.loads(line)
        key = tuple(entry.pop("key"))
        outcome = entry.get("outcome", {})
        losses = [outcome.pop(name, None) or 0.0 for name in LOSSES]
        if key[0] not in ("session", "gradients"):
            rest = {name: value for name, value in entry.items() if name not in ("spent", "image_at")}
            found[key] = {"rest": rest, "losses": losses}
    return found


if __name__ == "__main__":
    sys.exit(main())
