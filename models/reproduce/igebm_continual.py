"""Split-MNIST, class-incremental: a conditional energy against fine-tuning and elastic weight consolidation.

IGEBM (arXiv 1903.08689), in the protocol of Hsu et al. (arXiv 1810.12488).
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import Field

from models.config import Frozen
from models.data import ImageDataset, load_dataset
from models.reproduce.result import Finding, Number
from models.tasks.continual import SoftmaxLearning, split_classes
from models.tasks.continual_runs import (
    ENERGY,
    LEVELLED,
    SOFTMAX,
    Record,
    Tasks,
    energy_repeat,
    softmax_repeat,
)
from models.training.recipe import load_energy_recipe

FIGURE = "accuracies.png"
TUNED, ELASTIC = "fine-tuning", "elastic weight consolidation"
PAPER = {ENERGY: (64.99, 4.27), ELASTIC: (19.80, 0.05)}
Curves = Mapping[str, Sequence[Sequence[float]]]
"""By method, for each repeat: per cent correct after each task."""


class Settings(Frozen):
    """The size of the experiment.

    Args:
        recipe: of the energy; `overrides` make it another.
        strengths: lambdas of elastic weight consolidation; the best one on images held out of training is used.
        held_out: how many of these there are.
    """

    recipe: str = "mnist_continual"
    overrides: tuple[str, ...] = ()
    repeats: int = Field(default=10, ge=2)
    per_task: int = Field(default=2, ge=1)
    softmax: SoftmaxLearning = SoftmaxLearning(updates=240)
    strengths: tuple[float, ...] = Field(default=(1e1, 1e3, 1e5, 1e7), min_length=1)
    held_out: int = Field(default=5_000, ge=1)


def remake(folder: Path, device: torch.device, settings: Settings | None = None) -> Finding:
    """See `models.reproduce.experiments.Remake`."""
    settings = settings or Settings()
    data = load_energy_recipe(settings.recipe, settings.overrides).data
    train, test = load_dataset(data.name, "train", data.folder), load_dataset(data.name, "test", data.folder)
    tasks = split_classes(len(train.class_names), settings.per_task)
    tuning = _tuning(folder / "tuning", train, tasks, settings, device)
    strength = max(tuning, key=lambda each: tuning[each].accuracies[SOFTMAX][-1])
    energies: list[Record] = []
    classifiers: dict[str, list[Record]] = {TUNED: [], ELASTIC: []}
    for repeat in range(settings.repeats):
        run, recipe = folder / "energy" / f"repeat{repeat}", (settings.recipe, settings.overrides)
        energies.append(energy_repeat(run, recipe, train, test, tasks, repeat, device))
        for method, chosen in ((TUNED, 0.0), (ELASTIC, strength)):
            config = settings.softmax.model_copy(update={"strength": chosen})
            path = folder / method.replace(" ", "-") / f"repeat{repeat}.json"
            classifiers[method].append(softmax_repeat(path, config, train, test, tasks, repeat, device))
    curves = {way: [record.accuracies[way] for record in energies] for way in (ENERGY, LEVELLED)}
    curves |= {method: [each.accuracies[SOFTMAX] for each in records] for method, records in classifiers.items()}
    _plot(curves, tasks, folder / FIGURE)
    records = [*energies, *tuning.values(), *(each for records in classifiers.values() for each in records)]
    return _finding(settings, tasks, curves, tuning, strength, sum(record.cpu_seconds for record in records))


def _tuning(
    folder: Path, train: ImageDataset, tasks: Tasks, settings: Settings, device: torch.device
) -> dict[float, Record]:
    """Elastic weight consolidation of each strength, without the images that are held out to judge it."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    rows = order.split([len(train) - settings.held_out, settings.held_out])
    rest, held_out = (ImageDataset(train.name, train.images[r], train.labels[r], train.class_names) for r in rows)
    found = {}
    for strength in settings.strengths:
        config = settings.softmax.model_copy(update={"strength": strength})
        found[strength] = softmax_repeat(folder / f"{strength:g}.json", config, rest, held_out, tasks, 0, device)
    return found


def _finding(
    settings: Settings, tasks: Tasks, curves: Curves, tuning: Mapping[float, Record], strength: float, seconds: float
) -> Finding:
    recipe = load_energy_recipe(settings.recipe, settings.overrides)
    learning, softmax = recipe.learning, settings.softmax
    return Finding(
        title="Continual learning of Split-MNIST",
        source=(
            "IGEBM's table of continual learning, quoted from memory: energy 64.99 ± 4.27, VAE 40.04, LwF 24.17, EWC "
            "19.80, SI 19.67, NAS 19.52 % (all but the first two are Hsu et al.'s). Of the others only EWC is remade."
        ),
        numbers=tuple(_number(method, repeats) for method, repeats in curves.items()),
        setting=(
            f"{recipe.data.name}; tasks {', '.join(map(str, tasks))} in turn, one head, nothing of a task seen again, "
            f"{settings.repeats} seeds. Energy: recipe {settings.recipe}, {recipe.network.name} with "
            f"{recipe.network.arguments}; for each task {learning.updates} updates of {learning.batch_size} images and "
            f"as many chains of {recipe.sampler.num_steps} steps, which start from the task's own images, turned, with "
            f"its labels at random. Classifiers: hidden layers of {list(softmax.widths)}, for each task "
            f"{softmax.updates} updates of {softmax.batch_size} images. EWC's strength {strength:g} is the best of "
            f"{', '.join(f'{each:g}' for each in tuning)} on {settings.held_out:,} images held out of training."
        ),
        why=explain(curves),
        pictures=(FIGURE,),
        cpu_hours=seconds / 3600,
        details={
            "after each task": {method: [list(each) for each in repeats] for method, repeats in curves.items()},
            "EWC, held-out images": {f"{each:g}": tuning[each].accuracies[SOFTMAX] for each in tuning},
            "recipe": recipe.model_dump(mode="json"),
        },
    )


def _number(method: str, repeats: Sequence[Sequence[float]]) -> Number:
    ends = [accuracies[-1] for accuracies in repeats]
    paper, spread = PAPER.get(method, (None, None))
    return Number(
        what=f"accuracy after the last task: {method}",
        paper=paper,
        paper_spread=spread,
        recalled=paper is not None,
        ours=round(statistics.mean(ends), 2),
        ours_spread=round(statistics.stdev(ends), 2),
        spread=f"standard deviation of {len(ends)} runs",
        unit="%",
    )


def explain(curves: Curves) -> str:
    """What the accuracies say about forgetting, and about comparing energies of different labels."""
    plain, levelled, tuned, elastic = (
        statistics.mean(repeat[-1] for repeat in curves[method]) for method in (ENERGY, LEVELLED, TUNED, ELASTIC)
    )
    best = max(tuned, elastic)
    said = [
        "A class learns shifts and gains of its own, on linear maps that stay as drawn, and chains have the labels of "
        "the task at hand: the energies of all other labels are untouched, so that nothing is forgotten and what is "
        "lost is lost in comparing classes that never met.",
        f"The lowest energy names {plain:.1f} %, {'above' if plain > best else 'not above'} the {best:.1f} % of the "
        "better classifier, whose one softmax gives earlier classes ever less probability.",
        "Contrastive divergence leaves a constant of each label open: with the mean energy of a class's own training "
        f"images, kept from when its task ended, taken off first, {levelled:.1f} % are right.",
        "How the paper's network was conditioned, and how long it learned, is not known here; its chains started in "
        "noise, ours start from the task's images, turned, with either label: far shorter chains will do.",
    ]
    return " ".join(said)


def _plot(curves: Curves, tasks: Tasks, path: Path) -> None:
    """Per cent correct against the classes so far: mean of the repeats, and one standard deviation either way."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    seen = [sum(map(len, tasks[: number + 1])) for number in range(len(tasks))]
    for method, repeats in curves.items():
        columns = list(zip(*repeats, strict=True))
        means, deviations = [*map(statistics.mean, columns)], [*map(statistics.stdev, columns)]
        axis.errorbar(seen, means, yerr=deviations, marker="o", capsize=3, label=method)
    last = [100 * len(task) / count for task, count in zip(tasks, seen, strict=True)]
    axis.plot(seen, last, ":", color="black", label="the last task's classes alone")
    mean, deviation = PAPER[ENERGY]
    axis.errorbar(seen[-1:], [mean], yerr=[deviation], fmt="*", color="black", capsize=3, label="the paper's energy")
    axis.set_xticks(seen)
    axis.set_xlabel("classes so far")
    axis.set_ylabel("correct, %")
    axis.set_ylim(0, 103)
    axis.legend(fontsize="small")
    figure.savefig(path, dpi=200)
