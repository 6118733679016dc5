"""A batch run over Ray, killed, continued, and robbed of an actor: no image lost, none doubled.

`python -m tests.benchmarks.ray_batch`: 20,000 digits by `python -m service.batch --ray`, compared with one machine's.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from models.console import console
from models.data import load_dataset
from models.image_files import encode_png
from tests.benchmarks.processes import ROOT, BenchmarkError
from tests.ray_cluster import ENVIRONMENT, Cluster, local_cluster

DIGITS = ROOT / "models" / "zoo" / "digits-midrun"
CORRUPT_EVERY = 1000


def main() -> None:
    """Kill, continue, count, compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ray_batch", description=main.__doc__)
    parser.add_argument("--images", type=int, default=20_000, help="default %(default)s")
    parser.add_argument("--steps", type=int, default=40, help="of each chain (default %(default)s)")
    parser.add_argument("--part-size", type=int, default=250, help="default %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", options.images)
        with local_cluster(folder, "--include-dashboard=false") as cluster:
            command = [*_command(folder / "images", folder / "ray", options), f"--ray={cluster.address}"]
            total = -(-options.images // options.part_size)
            done = interrupt(command, folder / "ray", total // 4)
            console.print(f"the command killed by SIGKILL with {done} of {total} parts written")
            go_on(cluster, command, folder / "ray", total // 2)
        started = time.monotonic()
        _finish(_command(folder / "images", folder / "alone", options))
        console.print(f"the whole on one machine without Ray in {time.monotonic() - started:.1f} s")
        compare(folder / "ray", folder / "alone")


def write_images(folder: Path, count: int) -> None:
    """Digits in folders of a thousand; one file in a thousand is damaged."""
    images = load_dataset("digits", "test").images
    contents = [encode_png(image) for image in images]
    for number in range(count):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = contents[number % len(contents)]
        path.write_bytes(content[: len(content) // 2] if number % CORRUPT_EVERY == 7 else content)


def interrupt(command: list[str], out: Path, after: int) -> int:
    """SIGKILL the command after so many parts; the parts that are written."""
    with subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        _await_parts(out, after, process)
        process.kill()
    return len(list(out.glob("part-*")))


def go_on(cluster: Cluster, command: list[str], out: Path, after: int) -> None:
    """The same command again, to the end, with one of its actors killed by SIGKILL after so many parts."""
    started = time.monotonic()
    with subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        _await_parts(out, after, process)
        actors = cluster.processes("ray::MapWorker")
        if not actors:
            raise BenchmarkError("found no actor to kill")
        os.kill(actors[0], signal.SIGKILL)
        killed = len(list(out.glob("part-*")))
        said, _ = process.communicate()
    if process.returncode:
        raise BenchmarkError(f"the command failed: {said}")
    took = time.monotonic() - started
    console.print(f"continued to the end in {took:.1f} s, an actor of {len(actors)} killed at {killed} parts")
    console.print(f"  {said.strip().splitlines()[-1]}")


def compare(one: Path, other: Path) -> None:
    """Print whether two outputs hold the same rows, each once."""
    rows = [
        [line for path in sorted(out.glob("part-*")) for line in path.read_text().splitlines()] for out in (one, other)
    ]
    different = sum(a != b for a, b in zip(*rows, strict=False)) + abs(len(rows[0]) - len(rows[1]))
    console.print(f"{len(rows[0])} rows over Ray, {len(rows[1])} without; {different} differ", style="bold")


def _command(images: Path, out: Path, options: argparse.Namespace) -> list[str]:
    asked = (f"--steps={options.steps}", f"--part-size={options.part_size}", "--replicates=2", "--seed=0")
    return [sys.executable, "-m", "service.batch", str(images), str(out), f"--bundle={DIGITS}", *asked]


def _finish(command: list[str]) -> None:
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False)
    console.print(f"  {done.stdout.strip().splitlines()[-1] if done.stdout else ''}")
    if done.returncode:
        raise BenchmarkError(done.stderr)


def _await_parts(out: Path, count: int, process: "subprocess.Popen[Any]") -> None:
    while len(list(out.glob("part-*"))) < count:
        if process.poll() is not None:
            raise BenchmarkError("the run ended before it could be killed: give more --images")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
