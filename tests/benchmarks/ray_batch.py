"""A batch run over Ray, killed in the middle with one of its actors, and continued: no image lost, none doubled.

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
            done = interrupt(cluster, folder, options)
            console.print(
                f"killed by SIGKILL, an actor and then the command, with {done} of {_parts(options)} parts written"
            )
            started = time.monotonic()
            _finish([*_command(folder / "images", folder / "ray", options), f"--ray={cluster.address}"])
            console.print(f"continued over Ray to the end in {time.monotonic() - started:.1f} s")
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


def interrupt(cluster: Cluster, folder: Path, options: argparse.Namespace) -> int:
    """Begin over Ray; kill an actor after a fifth of the parts, the command after two. The parts that are written."""
    out, total = folder / "ray", _parts(options)
    command = [*_command(folder / "images", out, options), f"--ray={cluster.address}"]
    with subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        _await_parts(out, max(1, total // 5), process)
        actors = cluster.processes("ray::MapBatches(PartActor)") or cluster.processes("ray::MapWorker")
        if not actors:
            raise BenchmarkError("found no actor to kill")
        os.kill(actors[0], signal.SIGKILL)
        _await_parts(out, max(2, 2 * total // 5), process)
        process.kill()
    return len(list(out.glob("part-*")))


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


def _await_parts(out: Path, count: int, process: "subprocess.Popen[bytes]") -> None:
    while len(list(out.glob("part-*"))) < count:
        if process.poll() is not None:
            raise BenchmarkError("the run ended before it could be killed: give more --images")
        time.sleep(0.05)


def _parts(options: argparse.Namespace) -> int:
    return int(-(-options.images // options.part_size))


if __name__ == "__main__":
    main()
