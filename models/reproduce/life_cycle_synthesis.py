"""Short-run learning of CIFAR-10 beside chains that start from noise, as IGEBM's do, trained equally long.

FOLDER/
  generator, noise              training runs
  chains-generator, -noise      the chains that are scored, from where their runs started them
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.config import Frozen
from models.data import load_dataset
from models.evaluation.density_model import density_of_checkpoints
from models.evaluation.features import FeatureNetwork, load_efflite0
from models.evaluation.fidelity import Score
from models.evaluation.life_cycle import Measuring, RealImages, Scorer, draw_real, run_both
from models.evaluation.life_cycle_models import lifetime, own_start
from models.evaluation.long_chains import spent_seconds
from models.pixels import from_uint8, to_uint8
from models.reproduce.generation_figures import plot_samples
from models.reproduce.result import Finding, Number
from models.streams import Stream
from models.training.program import train_recipe
from models.training.recipe import EnergyRecipe, load_energy_recipe
from models.training.run import load_trained

PICTURE = "samples.png"
STARTS: dict[str, tuple[str, ...]] = {
    "generator": (),
    "noise": ("initialiser={ kind = 'noise' }", "short_run.rejuvenation_prob=0.05", "short_run.max_age=0"),
}
"""What each run's recipe has of its own: IGEBM's chains live on, and one in twenty starts anew."""
PAPER_FID = {"generator": 22.1, "noise": 40.58}


class Size(Frozen):
    """How much of it two CPU cores can carry.

    Args:
        recipe: of both runs; `overrides` change both.
        count: of chains from each start, and of real images of each kind.
    """

    recipe: str = "cifar10_short_light"
    overrides: tuple[str, ...] = (
        "short_run.updates=2000",
        "short_run.learning_rates=[[0, 1e-4], [1600, 1e-5]]",
        "short_run.checkpoint_every=100",
    )
    count: int = 1000
    seed: int = 0


FULL = Size()


def remake(
    folder: Path,
    device: torch.device,
    size: Size = FULL,
    load_features: Callable[[torch.device], FeatureNetwork] = load_efflite0,
) -> Finding:
    """Train both, run their chains as long as in learning, score them; what is there already is kept."""
    network = load_features(device)
    recipes = {name: load_energy_recipe(size.recipe, (*size.overrides, *own)) for name, own in STARTS.items()}
    data = recipes["generator"].data
    real = draw_real(load_dataset(data.name, "train", data.folder), size.count, size.seed)
    for name, recipe in recipes.items():
        train_recipe(recipe, folder / name, resume=True, amend=False, device=device)
    states: dict[str, Tensor] = {}
    for name, recipe in recipes.items():
        states |= _chains(name, recipe, real, size, folder, device)
    scorer = Scorer([network], real)
    scores = {title: scorer(images) for title, images in states.items()}
    plot_samples(
        {**{title: to_uint8(images) for title, images in states.items()}, "real": real.held_out}, folder / PICTURE
    )
    runs = [folder / name / "checkpoint.pt" for name in STARTS]
    seconds = [load_trained(run, "energy")[0]["cpu_seconds"] for run in runs]
    return _finding(size, network, scores, seconds, sum(spent_seconds(folder / f"chains-{name}") for name in STARTS))


def _chains(
    name: str, recipe: EnergyRecipe, real: RealImages, size: Size, folder: Path, device: torch.device
) -> dict[str, Tensor]:
    """By title, states [N, C, H, W]: a generator's images, and chains after as many steps as they had in learning."""
    block = recipe.sampler.num_steps
    steps = block * max(1, round(lifetime(recipe, folder / name) / block))
    stream = Stream((size.seed, "life cycle synthesis", name))
    start = own_start(recipe, folder / name / "checkpoint.pt", from_uint8(real.starts), stream, device)[1]
    model = density_of_checkpoints([folder / name / "checkpoint.pt"], None, device)
    measuring = Measuring(chains=size.count, steps=(steps,), block=block, seed=size.seed)
    snapshots, diverged = run_both(model, {name: start}, measuring, folder / f"chains-{name}")
    last = snapshots[name][-1]
    own = {f"{name} alone": snapshots[name][0].states} if name == "generator" else {}
    return own | {f"{name}, {last.step:,} steps{' (' + diverged + ')' if diverged else ''}": last.states}


def _finding(
    size: Size, network: FeatureNetwork, scores: Mapping[str, tuple[Score, ...]], training: list[float], chains: float
) -> Finding:
    hours = " and ".join(f"{seconds / 3600:.2f}" for seconds in training)
    return Finding(
        title="Short-run synthesis of CIFAR-10",
        source=(
            "EBM Life Cycle's README: FID 22.1 of short-run CIFAR-10; IGEBM: FID 40.58 without classes, by chains from "
            "noise."
        ),
        numbers=tuple(_numbers(network, scores)),
        setting=(
            f"{size.recipe} with {'; '.join(size.overrides)}, {hours} CPU hours; from noise: "
            f"{'; '.join(STARTS['noise'])}. {size.count:,} chains of each, of as many steps as in learning."
        ),
        why=(
            f"The two columns do not compare: {network.name}'s features are not the Inception network's, and "
            f"{size.count:,} images raise any Fréchet distance, of which the real images' row is the floor. The "
            "paper's generator and energy are wider, and learn for GPU-days where ours learn for about a CPU-hour."
        ),
        pictures=(PICTURE,),
        cpu_hours=round((sum(training) + chains) / 3600, 2),
        details={
            "size": size.model_dump(mode="json"),
            "features": network.identity,
            "scores": {title: [each.model_dump(mode="json") for each in found] for title, found in scores.items()},
        },
    )


def _numbers(network: FeatureNetwork, scores: Mapping[str, tuple[Score, ...]]) -> Iterator[Number]:
    frechet, kernel = network.frechet_name, f"KID-{network.name}"
    for title, found in scores.items():
        for each in found:
            if each.name in (frechet, kernel):
                theirs = _paper(title) if each.name == frechet else None
                what = f"{title}: {each.name}{'' if theirs is None else ' (paper: FID)'}"
                yield _number(what, each.samples.value, each.samples.standard_error, theirs)
    for each in next(iter(scores.values())):
        if each.name in (frechet, kernel):
            yield _number(f"real images: {each.name}", each.floor.value, each.floor.standard_error, None)


def _paper(title: str) -> float | None:
    return next((fid for name, fid in PAPER_FID.items() if title.startswith(f"{name}, ")), None)


def _number(what: str, value: float, error: float | None, paper: float | None) -> Number:
    return Number(
        what=what,
        paper=paper,
        ours=round(value, 4),
        ours_spread=None if error is None else round(error, 5),
        spread=None if error is None else "standard error over parts of the images",
    )
