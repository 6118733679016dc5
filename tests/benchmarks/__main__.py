"""`make bench`: every benchmark, as a table and as JSON under runs/benchmarks."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.langevin import measure_langevin

FOLDER = Path("runs/benchmarks")


def main() -> None:
    """Run the benchmarks, print their ratios and write them."""
    result = measure_langevin()
    table = Table("network", "batch", "way", "image-steps/s (median)", "spread", "against the eager float32 loop")
    for row in result["rows"]:
        spread = f"{row['slowest']:.0f} to {row['fastest']:.0f}"
        table.add_row(
            row["network"], str(row["batch"]), row["way"], f"{row['median']:.0f}", spread, f"{row['ratio']:.2f}"
        )
    Console().print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "langevin.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
