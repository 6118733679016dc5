"""`make bench`: every benchmark, as a table and as JSON under runs/benchmarks. One alone by its name."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from models.console import console
from tests.benchmarks.attacks import measure_attacks
from tests.benchmarks.langevin import measure_langevin

FOLDER = Path("runs/benchmarks")


def show_langevin(result: dict[str, Any]) -> None:
    """Image-steps a second of each way."""
    table = Table("network", "batch", "way", "image-steps/s (median)", "spread", "against the eager float32 loop")
    for row in result["rows"]:
        spread = f"{row['slowest']:.0f} to {row['fastest']:.0f}"
        table.add_row(
            row["network"], str(row["batch"]), row["way"], f"{row['median']:.0f}", spread, f"{row['ratio']:.2f}"
        )
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


BENCHMARKS: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[dict[str, Any]], None]]] = {
    "langevin": (measure_langevin, show_langevin),
    "attacks": (measure_attacks, show_attacks),
}


def main() -> None:
    """Run the benchmarks, print their ratios and write them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="default: all")
    chosen = parser.parse_args().name
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in [chosen] if chosen else BENCHMARKS:
        measure, show = BENCHMARKS[name]
        result = measure()
        show(result)
        (FOLDER / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
