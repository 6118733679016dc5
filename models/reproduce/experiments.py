"""The experiments by name. Their modules are imported when they run: each needs other packages."""

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import torch

from models.errors import ConfigError
from models.files import commit, replace_file, sole_writer
from models.reproduce.result import Finding, Reproduction

RESULT = "result.json"
EXPERIMENTS: dict[str, str] = {
    "igebm-generation": "CIFAR-10 samples: unconditional, historical ensembles, classes; scores and near copies",
    "igebm-robustness": "the conditional energy as a classifier, attacked with and without its refinement",
    "igebm-composition": "sprites: energies of concepts added, also in combinations never seen, and a decoder",
    "igebm-trajectories": "a robot hand's future by an energy's chains and by regression",
    "igebm-continual": "Split-MNIST, two classes at a time: a conditional energy, fine-tuning, elastic weights",
}
"""Each experiment's name, and what it shows in one line; `igebm-continual` is `models/reproduce/igebm_continual.py`."""
ELSEWHERE = {"igebm-robustness": "attacks_eval.igebm_robustness"}
"""Experiments that need another package of the project, known here by name alone: `models` imports none of them."""


class Experiment(Protocol):
    """An experiment's module."""

    def remake(self, folder: Path, device: torch.device) -> Finding:
        """Run the experiment in `folder`, or continue it there, and leave its pictures in it."""
        ...


def reproduce(name: str, folder: Path, device: torch.device) -> Reproduction:
    """Run or continue an experiment; `folder` then holds its result.json and pictures.

    Raises:
        ConfigError: an unknown experiment.
        FolderInUse: another program is at work in the folder.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(f"unknown experiment {name!r}; expected one of {', '.join(EXPERIMENTS)}")
    module = ELSEWHERE.get(name, f"models.reproduce.{name.replace('-', '_')}")
    experiment = cast(Experiment, import_module(module))
    with sole_writer(folder):
        found = experiment.remake(folder, device)
        result = Reproduction(
            **dict(found),
            name=name,
            command=f"python -m models reproduce {name}",
            commit=commit(),
            torch=torch.__version__,
        )
        replace_file(folder / RESULT, (result.model_dump_json(indent=1) + "\n").encode())
    return result
