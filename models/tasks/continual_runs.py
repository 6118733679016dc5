"""Class-incremental learning from the first task to the last, each finished repeat kept in a file."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from models.config import Frozen
from models.console import console
from models.data import ImageDataset
from models.files import replace_file
from models.kept import kept_record, require_same
from models.tasks.continual import (
    ElasticWeights,
    SoftmaxLearning,
    correct_by_energy,
    correct_by_logits,
    learn_task,
    mean_energy,
    softmax_network,
)
from models.training.frozen_parts import averaged_energy
from models.training.program import train_recipe
from models.training.recipe import load_energy_recipe

Tasks = Sequence[tuple[int, ...]]
ENERGY, LEVELLED = "lowest energy", "lowest energy above its class's level"
SOFTMAX = "highest logit"


class Record(Frozen):
    """A repeat: per cent correct of the test images of all classes so far, after each task, by each way to classify.

    `asked` is all that determines it.
    """

    asked: dict[str, Any]
    accuracies: dict[str, tuple[float, ...]]
    cpu_seconds: float


def energy_repeat(
    folder: Path,
    recipe: tuple[str, Sequence[str]],
    train: ImageDataset,
    test: ImageDataset,
    tasks: Tasks,
    repeat: int,
    device: torch.device,
) -> Record:
    """One run a task, from the weights of the run before, on its own classes alone.

    A class's level is the mean energy of its training images when its task ends: they are not seen again.

    Args:
        recipe: its name, and overrides that hold for every task.
    """
    name, overrides = recipe

    def learn() -> dict[str, tuple[float, ...]]:
        found: dict[str, tuple[float, ...]] = {ENERGY: (), LEVELLED: ()}
        levels: list[float] = []
        begin: list[str] = []
        for number, classes in enumerate(tasks):
            own = (f"seed={len(tasks) * repeat + number}", f"data.classes={list(classes)}", *begin)
            run = folder / f"task{number}"
            task = load_energy_recipe(name, (*overrides, *own))
            train_recipe(task, run, resume=True, amend=False, device=device)
            network = averaged_energy(run / "checkpoint.pt", device)
            levels += [mean_energy(network, train, label) for label in classes]
            labels = [label for each in tasks[: number + 1] for label in each]
            seen = test.of_classes(labels)
            found[ENERGY] += (100 * correct_by_energy(network, seen, labels) / len(seen),)
            found[LEVELLED] += (100 * correct_by_energy(network, seen, labels, levels) / len(seen),)
            begin = [f"weights={run / 'checkpoint.pt'}"]
        return found

    asked = {"recipe": name, "overrides": list(overrides), "tasks": [list(each) for each in tasks], "repeat": repeat}
    return _kept(folder / "record.json", asked, learn)


def softmax_repeat(
    path: Path,
    config: SoftmaxLearning,
    train: ImageDataset,
    test: ImageDataset,
    tasks: Tasks,
    repeat: int,
    device: torch.device,
) -> Record:
    """A classifier, task by task; fine-tuned or with elastic weights, as `config` says."""

    def learn() -> dict[str, tuple[float, ...]]:
        network = softmax_network(train.shape, len(train.class_names), config, repeat).to(device)
        elastic, found = ElasticWeights(), []
        for number, classes in enumerate(tasks):
            learn_task(network, train.of_classes(classes), elastic, config, seed=len(tasks) * repeat + number)
            labels = [label for each in tasks[: number + 1] for label in each]
            seen = test.of_classes(labels)
            found.append(100 * correct_by_logits(network, seen, labels) / len(seen))
        return {SOFTMAX: tuple(found)}

    tasks_asked = {"tasks": [list(each) for each in tasks], "repeat": repeat, "images": len(train)}
    return _kept(path, config.model_dump(mode="json") | tasks_asked, learn)


def _kept(path: Path, asked: dict[str, Any], learn: Callable[[], dict[str, tuple[float, ...]]]) -> Record:
    """What `path` holds, or else what is learned now; raises CheckpointError where it holds something else."""
    if (kept := kept_record(path, Record, "a repeat")) is not None:
        require_same(path, kept.asked, asked)
        return kept
    start = time.process_time()
    record = Record(asked=asked, accuracies=learn(), cpu_seconds=time.process_time() - start)
    replace_file(path, record.model_dump_json(indent=1).encode())
    for way, accuracies in record.accuracies.items():
        console.print(f"{path}, {way}: {', '.join(f'{each:.1f}' for each in accuracies)} % after each task")
    return record
