"""python -m models life-cycle: one network learned short-run, mid-run and long-run, and what its chains are worth."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from models.config import validate
from models.console import console, positive_int
from models.device import resolve_device
from models.evaluation.fidelity import Estimate
from models.evaluation.life_cycle import STEPS, LifeCycle, Measuring
from models.evaluation.life_cycle_run import FEATURES, FIGURE, RESULT, SHEET, run_life_cycle


def life_cycle(options: argparse.Namespace) -> None:
    """Learn energies short-run, mid-run and long-run; score their chains at each length. Run again, it continues."""
    device = resolve_device(options.device)
    table = {"chains": options.chains, "steps": options.steps, "block": options.block, "seed": options.seed}
    measuring = validate(Measuring, table, "--chains, --steps, --block")
    result = run_life_cycle(options.data, options.out, device, measuring, options.features, options.set)
    _print(result)
    console.print(f"written to {options.out}: {RESULT}, {FIGURE}, {SHEET}, grids")


def life_cycle_arguments(parser: argparse.ArgumentParser) -> None:
    """What `life-cycle` reads, but for the device."""
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--out", type=Path, required=True, help="the folder of all runs, results and pictures")
    parser.add_argument("--chains", type=positive_int, default=64, help="from each start (default 64)")
    parser.add_argument("--steps", type=positive_int, nargs="+", default=STEPS, help="default: 100 to 1,000,000")
    parser.add_argument("--block", type=positive_int, default=50, help="steps at a time; a stop waits for their end")
    parser.add_argument(
        "--features", choices=tuple(FEATURES), nargs="+", default=tuple(FEATURES), help="the first makes the figure"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="STAGE.A.B=VALUE", help="override a value of a stage's recipe"
    )
    parser.add_argument("--seed", type=int, default=0)


def _print(result: LifeCycle) -> None:
    for curve in result.curves:
        console.print(f"{curve.model}-run, chains from {curve.start}:")
        for point in curve.points:
            shown = _shown({each.name: each.samples for each in point.scores})
            console.print(f"{point.step:>9,} steps  {shown}  U {-point.against.gap:+.1f} nats above data")
        if curve.diverged is not None:
            console.print(f"  ended: {curve.diverged}")
    console.print(f"training images: {_shown({each.name: each.floor for each in result.noisy_data})}")
    console.print(f"with learning's noise: {_shown({each.name: each.samples for each in result.noisy_data})}")


def _shown(scores: Mapping[str, Estimate]) -> str:
    """Distances; precision and recall are in the JSON."""
    return "  ".join(f"{name} {each}" for name, each in scores.items() if name.startswith(("FD-", "KID-")))
