"""python -m models life-cycle: one network learned short-run, mid-run and long-run, and what its chains are worth."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from models.config import validate
from models.console import console, positive_int, progress_bar
from models.data import load_dataset
from models.device import resolve_device
from models.errors import ConfigError
from models.evaluation.classifier_features import load_classifier_features
from models.evaluation.features import FeatureNetwork, load_efflite0
from models.evaluation.fidelity import Estimate
from models.evaluation.life_cycle import (
    STEPS,
    Curve,
    LifeCycle,
    Measuring,
    Scorer,
    Walk,
    draw_real,
    measure,
    with_noise,
)
from models.evaluation.life_cycle_models import CLASSIFIER, MODELS, stage_recipes, train_stages, walk
from models.evaluation.life_cycle_plot import plot_life_cycle, plot_sheet
from models.files import commit, replace_file
from models.streams import Stream
from models.training.diagnostics import save_grid

GRID_IMAGES = 64
FEATURES: dict[str, Callable[[Path, torch.device], FeatureNetwork]] = {
    "efflite0": lambda folder, device: load_efflite0(device),
    "classifier": lambda folder, device: load_classifier_features(folder / CLASSIFIER / "checkpoint.pt", device),
}


def life_cycle(options: argparse.Namespace) -> None:
    """Learn energies short-run, mid-run and long-run; score their chains at each length. Run again, it continues."""
    if missing := [name for name in ("matplotlib", "scipy") if find_spec(name) is None]:
        raise ConfigError(f"the life cycle needs {' and '.join(missing)}: install the extra `eval`")
    device, folder = resolve_device(options.device), options.out
    table = {"chains": options.chains, "steps": options.steps, "block": options.block, "seed": options.seed}
    measuring = validate(Measuring, table, "--chains, --steps, --block")
    recipes = stage_recipes(options.data, folder, options.set)
    real = draw_real(load_dataset(options.data, "train"), measuring.chains, measuring.seed)
    train_stages(recipes, folder, device)
    networks = [FEATURES[name](folder, device) for name in options.features]
    scorer = Scorer(networks, real)
    noise = recipes.energies["short"].learning.data_noise  # that of all stages
    noisy = with_noise(real.starts, noise, Stream((measuring.seed, "life cycle", "noise on starts")))
    walks = [walk(name, recipes, real, measuring, folder, device) for name in MODELS]
    result = LifeCycle(
        data=options.data,
        measuring=measuring,
        features={network.name: network.identity for network in networks},
        noisy_data=scorer(noisy),
        models=tuple(each.record for each in walks),
        curves=_curves(walks, scorer, folder / "points"),
        commit=commit(),
        torch=torch.__version__,
    )
    replace_file(folder / "life_cycle.json", (result.model_dump_json(indent=2) + "\n").encode())
    _draw(result, walks, folder)
    _print(result, folder)


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


def _curves(walks: Sequence[Walk], scorer: Scorer, folder: Path) -> tuple[Curve, ...]:
    """Every point scored, or read where it was scored before."""
    curves = []
    with progress_bar("points", sum(len(each) for walk in walks for each in walk.snapshots.values())) as progress:
        for each in walks:
            for start, snapshots in each.snapshots.items():
                points = []
                for snapshot in snapshots:
                    path = folder / f"{each.record.name}-from-{start}-{snapshot.step:08d}.json"
                    points.append(measure(snapshot, each.data_energies, scorer, path))
                    progress.advance(progress.task_ids[0])
                curve = Curve(model=each.record.name, start=start, points=tuple(points), diverged=each.diverged)
                curves.append(curve)
    return tuple(curves)


def _draw(result: LifeCycle, walks: Sequence[Walk], folder: Path) -> None:
    """The figures, and a grid of chains for each point."""
    for place, network in enumerate(result.features):
        plot_life_cycle(result, network, folder / ("life_cycle.png" if place == 0 else f"life_cycle-{network}.png"))
    plot_sheet(walks, folder / "chains.png")
    (folder / "grids").mkdir(exist_ok=True)
    for each in walks:
        for start, snapshots in each.snapshots.items():
            for snapshot in snapshots:
                name = f"{each.record.name}-from-{start}-{snapshot.step:08d}.png"
                save_grid(snapshot.states[:GRID_IMAGES], folder / "grids" / name)


def _print(result: LifeCycle, folder: Path) -> None:
    for curve in result.curves:
        console.print(f"{curve.model}-run, chains from {curve.start}:")
        for point in curve.points:
            shown = _shown({each.name: each.samples for each in point.scores})
            console.print(f"{point.step:>9,} steps  {shown}  U {-point.against.gap:+.1f} nats above data")
        if curve.diverged is not None:
            console.print(f"  ended: {curve.diverged}")
    console.print(f"training images: {_shown({each.name: each.floor for each in result.noisy_data})}")
    console.print(f"with learning's noise: {_shown({each.name: each.samples for each in result.noisy_data})}")
    console.print(f"written to {folder}: life_cycle.json, life_cycle.png, chains.png, grids")


def _shown(scores: Mapping[str, Estimate]) -> str:
    """Distances; precision and recall are in the JSON."""
    return "  ".join(f"{name} {each}" for name, each in scores.items() if name.startswith(("FD-", "KID-")))
