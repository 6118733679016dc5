"""IGEBM's samples of CIFAR-10 (arXiv 1903.08689): unconditional, of historical ensembles, of classes.

FOLDER/
  unconditional, conditional   training runs, each with its history
  samples/NAME/                rounds of each kind of samples
"""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from models.config import Frozen
from models.console import progress_bar
from models.data import Split, load_dataset
from models.evaluation.feature_cache import cached_features
from models.evaluation.features import FeatureNetwork, load_efflite0
from models.evaluation.fidelity import SCORE_STEPS, Estimate, Score, score
from models.evaluation.inception_score import classifier_score
from models.evaluation.neighbours import Closeness, closeness, nearest
from models.reproduce.generation_figures import plot_neighbours, plot_samples, plot_walks
from models.reproduce.result import Finding, Number
from models.tasks.generation import Ensemble, Round
from models.tasks.generation_run import generate_rounds
from models.training.program import train_recipe
from models.training.recipe import EnergyRecipe, load_recipe
from models.training.trained import TrainedEnergy, load_history, load_trained_energy

PAPER = {
    "unconditional": (6.02, 40.58),
    "ensemble, averaged": (None, None),
    "ensemble, switched": (6.78, 38.20),
    "conditional": (8.30, 37.9),
}
"""Inception Score and FID of each kind of samples. The paper's ensemble is of ten; its code switches call by call."""
SPLITS: tuple[Split, Split] = ("train", "test")
PICTURES = ("samples.png", "classes.png", "neighbours.png")

Scores = Mapping[str, tuple[Score, ...]]
Near = Mapping[str, tuple[Closeness, ...]]
"""Of each kind of samples."""


class Size(Frozen):
    """How much of it two CPU cores can carry.

    Args:
        recipes: of the energy without classes, and of that with them; `overrides` change both.
        members: of an ensemble, the last that the run kept.
        num_steps: of a call of the sampler; rounds are IGEBM's, smaller.
        known: training images that samples are compared with by features; by pixels it is all of them.
        walk_calls: under each class of a class-to-class chain or a cycle.
    """

    recipes: tuple[str, str] = ("igebm_cifar10_light", "igebm_cifar10_conditional_light")
    overrides: tuple[str, ...] = (
        "network.arguments.stem=8",
        "network.arguments.blocks=[[16, true], [32, true], [32, true], [64, true]]",
        "sampler.num_steps=20",
        "implicit_run.updates=1500",
        "implicit_run.batch_size=32",
        "implicit_run.bank_size=500",
        "implicit_run.learning_rates=1e-3",
        "implicit_run.average_decay=0.99",
        "implicit_run.keep_every=100",
        "implicit_run.checkpoint_every=500",
    )
    members: int = 4
    num_steps: int = 20
    rounds: int = 2
    round: Round = Round(bank_size=250, batch_size=64, calls=60)
    known: int = 5000
    walk_calls: int = 8


FULL = Size()


def remake(
    folder: Path,
    device: torch.device,
    size: Size = FULL,
    load_features: Callable[[torch.device], FeatureNetwork] = load_efflite0,
) -> Finding:
    """Train, sample, score, and look for copies; what is there already is kept."""
    network = load_features(device)
    plain, conditional = (_trained(name, run, folder, device, size) for name, run in _runs(size).items())
    history = load_history(plain, folder / "unconditional", size.members)
    kinds = {
        "unconditional": (plain, Ensemble([plain])),
        "ensemble, averaged": (plain, Ensemble(history, "averaged")),
        "ensemble, switched": (plain, Ensemble(history, "switched")),
        "conditional": (conditional, Ensemble([conditional])),
    }
    made = {
        name: generate_rounds(trained, ensemble, size.round, size.rounds, size.num_steps, folder / "samples" / name)
        for name, (trained, ensemble) in kinds.items()
    }
    start = time.process_time()
    samples = {name: each.images for name, each in made.items()}
    scores, near = _measured(samples, plain, network, size, folder)
    reached = plot_walks(conditional, made["conditional"], size.walk_calls, size.num_steps, folder / PICTURES[1])
    plot_samples(samples, folder / PICTURES[0])
    seconds = (
        plain.cpu_seconds
        + conditional.cpu_seconds
        + sum(each.cpu_seconds for each in made.values())
        + time.process_time()
        - start
    )
    return _finding(size, network, scores, near, reached, seconds)


def _runs(size: Size) -> dict[str, str]:
    return dict(zip(("unconditional", "conditional"), size.recipes, strict=True))


def _trained(name: str, recipe_name: str, folder: Path, device: torch.device, size: Size) -> TrainedEnergy:
    recipe = load_recipe(recipe_name, size.overrides)
    assert isinstance(recipe, EnergyRecipe)
    train_recipe(recipe, folder / name, resume=True, amend=False, device=device)
    return load_trained_energy(folder / name / "checkpoint.pt", device)


def _measured(
    samples: Mapping[str, Tensor], trained: TrainedEnergy, network: FeatureNetwork, size: Size, folder: Path
) -> tuple[Scores, Near]:
    """Scores of each kind of samples beside real images', and how near they are to training images."""
    data = trained.recipe.data
    train, test = (load_dataset(data.name, split, data.folder).images for split in SPLITS)
    count, order = size.rounds * size.round.bank_size, torch.Generator().manual_seed(0)
    real, unseen = (images[torch.randperm(len(images), generator=order)] for images in (train, test))
    real, unseen = real[: max(2 * count, size.known)], unseen[:count]
    with progress_bar(f"{network.name} features", len(real) + (len(samples) + 1) * count) as progress:
        advance = partial(progress.advance, progress.task_ids[0])
        known, held_out = (cached_features(network, images, advance) for images in (real, unseen))
        features = {name: network.features(images, advance) for name, images in samples.items()}
    reference, floor = known[: 2 * count].split(count)
    scores: dict[str, tuple[Score, ...]] = {}
    with progress_bar("scores", SCORE_STEPS * len(samples)) as progress:
        done = partial(progress.advance, progress.task_ids[0])
        for name, own in features.items():
            by_classifier = classifier_score(network, own, floor)
            scores[name] = score(network.name, network.frechet_name, own, reference, floor, done)
            scores[name] += () if by_classifier is None else (by_classifier,)
    by_pixels = _neighbours("pixels", samples, train, unseen, folder / PICTURES[2])
    by_features = _neighbours(network.name, features, known[: size.known], held_out)
    return scores, {name: (by_pixels[name], by_features[name]) for name in samples}


def _neighbours(
    space: str, samples: Mapping[str, Tensor], train: Tensor, unseen: Tensor, picture: Path | None = None
) -> dict[str, Closeness]:
    """Each kind of samples in the training set; `picture` shows the neighbours of the conditional ones."""
    found = {}
    with progress_bar(f"neighbours by {space}", len(unseen) + sum(map(len, samples.values()))) as progress:
        advance = partial(progress.advance, progress.task_ids[0])
        expected = nearest(unseen, train, advance=advance)
        for name, own in samples.items():
            near = nearest(own, train, advance=advance)
            found[name] = closeness(space, near, expected)
            if picture is not None and name == "conditional":
                plot_neighbours(own, train, near.rows, picture)
    return found


def _finding(
    size: Size, network: FeatureNetwork, scores: Scores, near: Near, reached: float, seconds: float
) -> Finding:
    chains = f"{size.round.calls} calls of {size.num_steps} steps on {size.round.batch_size} of {size.round.bank_size}"
    return Finding(
        title="Samples of CIFAR-10",
        source="IGEBM's table of Inception Scores and FID, in the text of the paper.",
        numbers=tuple(_numbers(network, scores, near)),
        setting=(
            f"{' and '.join(size.recipes)} with {'; '.join(size.overrides)}. {size.rounds} rounds of {chains} chains; "
            f"ensembles of {size.members} kept weights."
        ),
        why=(
            f"The two columns do not compare: {network.name}'s features and classes are not the Inception network's, "
            "and few images alone lower an Inception Score and raise a Fréchet distance. Our rows compare with each "
            "other and with the real images'. Networks, chains and updates are a small fraction of the paper's."
        ),
        pictures=PICTURES,
        cpu_hours=round(seconds / 3600, 3),
        details={
            "size": size.model_dump(mode="json"),
            "features": network.identity,
            "scores": {name: [each.model_dump(mode="json") for each in found] for name, found in scores.items()},
            "neighbours": {name: [each.model_dump(mode="json") for each in found] for name, found in near.items()},
            "class_to_class_reached": reached,
        },
    )


def _numbers(network: FeatureNetwork, scores: Scores, near: Near) -> Iterator[Number]:
    score_name, distance_name = f"IS-{network.name}", network.frechet_name
    for kind, found in scores.items():
        papers = dict(zip((score_name, distance_name), PAPER[kind], strict=True))
        theirs = {score_name: " (paper: Inception Score)", distance_name: " (paper: FID)"}
        for each in found:
            if each.name in (score_name, distance_name, f"KID-{network.name}"):
                what = f"{kind}: {each.name}{theirs.get(each.name, '')}"
                yield _number(what, each.samples, papers.get(each.name))
    for each in scores["unconditional"]:
        yield _number(f"real images: {each.name}", each.floor, None)
    for kind, spaces in near.items():
        for closest in spaces:
            what = f"{kind}: nearer to one training image by {closest.space} than 95 % of test images are"
            share = Estimate(value=round(100 * closest.copies.value, 1))
            yield _number(what, share, None, "%")


def _number(what: str, found: Estimate, paper: float | None, unit: str = "") -> Number:
    error = found.standard_error
    return Number(
        what=what,
        paper=paper,
        ours=round(found.value, 4),
        ours_spread=None if error is None else round(error, 5),
        spread=None if error is None else "standard error over parts of the images",
        unit=unit,
    )
