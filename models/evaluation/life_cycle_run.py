"""The life cycle from training to figures, in a folder where it goes on after an interruption."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from models.console import progress_bar
from models.data import load_dataset
from models.errors import ConfigError
from models.evaluation.classifier_features import load_classifier_features
from models.evaluation.features import FeatureNetwork, load_efflite0
from models.evaluation.life_cycle import FULL, Curve, LifeCycle, Measuring, Scorer, Walk, draw_real, measure, with_noise
from models.evaluation.life_cycle_models import CLASSIFIER, MODELS, stage_recipes, train_stages, walk
from models.evaluation.life_cycle_plot import plot_life_cycle, plot_sheet
from models.files import commit, replace_file
from models.streams import Stream
from models.training.diagnostics import save_grid

GRID_IMAGES = 64
FIGURE, SHEET, RESULT = "life_cycle.png", "chains.png", "life_cycle.json"
FEATURES: dict[str, Callable[[Path, torch.device], FeatureNetwork]] = {
    "efflite0": lambda folder, device: load_efflite0(device),
    "classifier": lambda folder, device: load_classifier_features(folder / CLASSIFIER / "checkpoint.pt", device),
}
"""The networks that can score, by what loads them; the first that is asked for makes the main figure."""


def run_life_cycle(
    data: str,
    folder: Path,
    device: torch.device,
    measuring: Measuring = FULL,
    features: Sequence[str] = tuple(FEATURES),
    overrides: Sequence[str] = (),
) -> LifeCycle:
    """Learn the energies of `data`, run their chains, score and draw them; what `folder` holds already is kept.

    Args:
        features: names in FEATURES.
        overrides: STAGE.A.B=VALUE, into the stages' recipes.
    """
    if missing := [name for name in ("matplotlib", "scipy") if find_spec(name) is None]:
        raise ConfigError(f"the life cycle needs {' and '.join(missing)}: install the extra `eval`")
    recipes = stage_recipes(data, folder, overrides)
    real = draw_real(load_dataset(data, "train"), measuring.chains, measuring.seed)
    train_stages(recipes, folder, device)
    networks = [FEATURES[name](folder, device) for name in features]
    scorer = Scorer(networks, real)
    noise = recipes.energies["short"].learning.data_noise  # that of all stages
    noisy = with_noise(real.starts, noise, Stream((measuring.seed, "life cycle", "noise on starts")))
    walks = [walk(name, recipes, real, measuring, folder, device) for name in MODELS]
    result = LifeCycle(
        data=data,
        measuring=measuring,
        features={network.name: network.identity for network in networks},
        noisy_data=scorer(noisy),
        models=tuple(each.record for each in walks),
        curves=_curves(walks, scorer, folder / "points"),
        commit=commit(),
        torch=torch.__version__,
    )
    replace_file(folder / RESULT, (result.model_dump_json(indent=2) + "\n").encode())
    _draw(result, walks, folder)
    return result


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
        plot_life_cycle(result, network, folder / (FIGURE if place == 0 else f"life_cycle-{network}.png"))
    plot_sheet(walks, folder / SHEET)
    (folder / "grids").mkdir(exist_ok=True)
    for each in walks:
        for start, snapshots in each.snapshots.items():
            for snapshot in snapshots:
                name = f"{each.record.name}-from-{start}-{snapshot.step:08d}.png"
                save_grid(snapshot.states[:GRID_IMAGES], folder / "grids" / name)
