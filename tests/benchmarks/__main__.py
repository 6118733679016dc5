"""`make bench`: every benchmark, as a table and as JSON under runs/benchmarks. One alone by its name.

python -m tests.benchmarks service-load --threads 2 --set seconds=20
"""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.table import Column, Table

from models.config import Frozen, apply_overrides, validate
from models.console import console, positive_int, run_command
from models.files import commit
from models.precision import DTYPES
from tests.benchmarks import attacks, langevin, service_aborts, service_answers, service_engine, service_load, training
from tests.benchmarks.aims import show_aims
from tests.benchmarks.langevin_ways import OURS

FOLDER = Path("runs/benchmarks")


def show_langevin(result: dict[str, Any]) -> None:
    """Speed, share of the machine and correctness of each way; then milliseconds of ours by side and batch."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        groups.setdefault(f"{row['network']}, {row['side']} pixels, batch {row['batch']}", []).append(row)
    for title, rows in groups.items():
        columns = ("steps/s", "spread", "ratio", "peak", "FLOP/B", "cosine", "error")
        table = Table(Column(no_wrap=True), *columns, title=title, box=SIMPLE, title_justify="left", pad_edge=False)
        for row in rows:
            spread = " ".join(f"{row[end] / row['median'] - 1:+.0%}" for end in ("slowest", "fastest"))
            speed = (f"{row['median']:.4g}", spread, f"{row['ratio']:.2f}", f"{row['peak_share']:.0%}")
            error = (f"{row['intensity']:.0f}", f"{row['cosine']:.4f}", f"{row['relative_error']:.1e}")
            table.add_row(row["way"], *speed, *error)
        console.print(table)
    _show_cost([row for row in result["rows"] if row["way"] == OURS])
    for dtype in DTYPES:
        peaks = [row["peak_flops"] / 1e9 for row in result["rows"] if row["dtype"] == dtype]
        console.print(f"{dtype} matrix-multiply peak: {statistics.median(peaks):.0f} GFLOP/s")
    console.print(
        "steps/s: image-steps a second, median; ratio: to the eager float32 loop; peak: share of the peak of the row's "
        "own precision; cosine, error: the gradient's against float32 autograd, of the worst image"
    )


def _show_cost(rows: list[dict[str, Any]]) -> None:
    """Milliseconds of an image-step for each network and side, by batch."""
    batches = sorted({row["batch"] for row in rows})
    table = Table(f"{OURS}: ms/image-step", "pixels", "MFLOP", *(f"batch {batch}" for batch in batches))
    for network, side, flops in dict.fromkeys((row["network"], row["side"], row["flops"]) for row in rows):
        times = {row["batch"]: row["milliseconds"] for row in rows if (row["network"], row["side"]) == (network, side)}
        cells = (f"{times[batch]:.3g}" if batch in times else "-" for batch in batches)
        table.add_row(network, str(side), f"{flops / 1e6:.0f}", *cells)
    console.print(table)


def show_training(result: dict[str, Any]) -> None:
    """Seconds of an update, with its Langevin steps and without."""
    table = Table("update", "seconds (median)", "spread")
    for row in result["rows"]:
        table.add_row(row["way"], f"{row['median']:.3f}", f"{row['fastest']:.3f} to {row['slowest']:.3f}")
    console.print(table)


def show_attacks(result: dict[str, Any]) -> None:
    """Seconds, image-steps and verdicts of each way, and the ratio in its two factors."""
    rows, images = result["rows"], result["images"]
    table = Table("", *(row["way"] for row in rows))
    table.add_row("seconds", *(f"{row['seconds']:.1f}" for row in rows))
    table.add_row("image-steps/s", *(f"{row['rate']:.0f}" for row in rows))
    table.add_row("image-steps", *(f"{row['total_steps']:,}" for row in rows))
    for what in rows[0]["image_steps"]:
        table.add_row(f"  {what}", *(f"{row['image_steps'][what]:,}" for row in rows))
    table.add_row("right when clean", *(f"{row['clean']}/{images}" for row in rows))
    table.add_row("right under attack", *(f"{row['robust']}/{images}" for row in rows))
    console.print(table)
    console.print(
        f"{result['ratio']:.1f} times as fast: {result['steps_ratio']:.2f} times fewer image-steps, each "
        f"{result['rate_ratio']:.2f} times as fast; verdicts differ on {result['disagreements']} of {images} images"
    )


def show_service_engine(result: dict[str, Any]) -> None:
    """Image-steps a second of each way."""
    table = Table("way", "image-steps/s (median)", "spread", "against bare (median)", "spread")
    for row in result["rows"]:
        spread = f"{row['slowest']:.0f} to {row['fastest']:.0f}"
        ratios = f"{min(row['ratios']):.3f} to {max(row['ratios']):.3f}"
        table.add_row(row["way"], f"{row['median']:.0f}", spread, f"{row['ratio']:.3f}", ratios)
    console.print(table)
    console.print(f"{result['slots']} slots; all of them taken in {result['full_quanta']:.1%} of the quanta")


def show_service_answers(result: dict[str, Any]) -> None:
    """Milliseconds of an answer behind each bundle."""
    table = Table("bundle", "steps", "replicates", "one at a time (ms)", "many clients (ms an image)")
    for row in result["rows"]:
        preset, times = row["preset"], [f"{row[way]:.0f}" for way in ("alone", "together")]
        table.add_row(row["bundle"], str(preset["num_steps"]), str(preset["replicates"]), *times)
    console.print(table)


def show_service_load(result: dict[str, Any]) -> None:
    """What became of the requests behind each server, and how long those of each length took."""
    rows = result["rows"]
    table = Table("", *(row["server"] for row in rows))
    table.add_row("sent", *(str(row["sent"]) for row in rows))
    for answer in dict.fromkeys(answer for row in rows for answer in row["answers"]):
        table.add_row(f"  {answer}", *(str(row["answers"].get(answer, 0)) for row in rows))
    for number, steps in enumerate(length["steps"] for length in rows[0]["lengths"]):
        lengths = [row["lengths"][number] for row in rows]
        table.add_row(f"{steps} steps, answered", *(f"{each['answered']} of {each['sent']}" for each in lengths))
        table.add_row("  p50, p95 (s)", *(f"{_seconds(each['p50'])}, {_seconds(each['p95'])}" for each in lengths))
    table.add_row("answered image-steps/s", *(f"{row['goodput']:.0f}" for row in rows))
    table.add_row("until the last answer (s)", *(f"{row['seconds']:.1f}" for row in rows))
    health = [row["health"] for row in rows]
    quantiles = [", ".join(_seconds(each[name]) for name in ("p50", "p95", "max")) for each in health]
    table.add_row("health: p50, p95, max (s)", *quantiles)
    memory = [[mib for _, mib in row["resident"]] for row in rows]
    table.add_row("memory: first, most, last (MiB)", *(f"{m[0]:.0f}, {max(m):.0f}, {m[-1]:.0f}" for m in memory))
    console.print(table)
    console.print(
        f"offered {result['arrivals_a_second']:.1f} requests/s; bare sampler {result['capacity']:.0f} image-steps/s"
    )


def show_service_aborts(result: dict[str, Any]) -> None:
    """How the requests ended, and the server's memory before and after."""
    table = Table("ending", "requests")
    for ending, count in result["endings"].items():
        table.add_row(ending, str(count))
    console.print(table)
    console.print("memory: {:.1f} MiB, then {:.1f}".format(*result["resident"]))


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


@dataclass(frozen=True)
class Benchmark:
    """How one is configured, measured and shown."""

    setting: type[Frozen]
    measure: Callable[[Any], dict[str, Any]]
    show: Callable[[dict[str, Any]], None]


BENCHMARKS = {
    "langevin": Benchmark(langevin.Setting, langevin.measure_langevin, show_langevin),
    "training": Benchmark(training.Setting, training.measure_training, show_training),
    "attacks": Benchmark(attacks.Setting, attacks.measure_attacks, show_attacks),
    "service-engine": Benchmark(service_engine.Setting, service_engine.measure_service_engine, show_service_engine),
    "service-answers": Benchmark(
        service_answers.Setting, service_answers.measure_service_answers, show_service_answers
    ),
    "service-load": Benchmark(service_load.Setting, service_load.measure_service_load, show_service_load),
    "service-aborts": Benchmark(service_aborts.Setting, service_aborts.measure_service_aborts, show_service_aborts),
}


def main() -> int:
    """Run the benchmarks, print what they measured and write it; 2 for what the user can correct."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="default: all")
    parser.add_argument("--threads", type=positive_int, help="of PyTorch, in each process; default: its own choice")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change the named one's setting"
    )
    options = parser.parse_args()
    if options.set and not options.name:
        parser.error("--set needs the name of a benchmark")
    if options.threads and os.environ.get("OMP_NUM_THREADS") != str(options.threads):
        # OpenMP reads it when it is loaded, in this process and in the servers that it starts.
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
        os.execv(sys.executable, [sys.executable, "-m", "tests.benchmarks", *sys.argv[1:]])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that servers are stopped
    options.run = _run
    return run_command(options)


def _run(options: argparse.Namespace) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in [options.name] if options.name else BENCHMARKS:
        benchmark = BENCHMARKS[name]
        setting = validate(benchmark.setting, apply_overrides({}, options.set), "--set")
        result = benchmark.measure(setting)
        benchmark.show(result)
        show_aims(result.get("aims", []))
        result = _circumstances() | {"setting": setting.model_dump(mode="json")} | result
        (FOLDER / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")


def _circumstances() -> dict[str, Any]:
    """What a number depends on beyond its setting."""
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "numpy", "fastapi", "starlette", "uvicorn", "h11")},
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
    }


if __name__ == "__main__":
    sys.exit(main())
