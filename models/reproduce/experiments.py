"""The experiments by name. Their modules are imported when they run: each needs other packages."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch

from models.errors import ConfigError
from models.files import commit, replace_file, sole_writer
from models.reproduce.result import Finding, Reproduction

RESULT = "result.json"
EXPERIMENTS: dict[str, str] = {
    "life-cycle": "digits: short-run, mid-run and long-run energies of one network, chains of a million steps",
    "life-cycle-synthesis": "CIFAR-10: short-run learning with a generator, and from noise, equally long",
    "life-cycle-density": "digits: is the long-run energy a density? Chains against data, and log Z by annealing",
    "igebm-generation": "CIFAR-10 samples: unconditional, historical ensembles, classes; scores and near copies",
    "igebm-composition": "sprites: energies of concepts added, also in combinations never seen, and a decoder",
    "igebm-trajectories": "a robot hand's future by an energy's chains and by regression",
    "igebm-continual": "Split-MNIST, two classes at a time: a conditional energy, fine-tuning, elastic weights",
    "igebm-detection": "CIFAR-10 against other images: AUROC of the shipped energy, typicality and gradient",
    "igebm-restoration": "CIFAR-10 with scattered pixels, a box or a half lost: training and test images, and filters",
    "igebm-likelihood": "digits: log Z of an energy learned from noise, from both ends, and what test images are worth",
}
"""Each experiment's name, and what it shows in one line; `igebm-continual` is `models/reproduce/igebm_continual.py`."""
Remake = Callable[[Path, torch.device], Finding]
"""`remake` of an experiment's module: runs it in a folder, or continues it there, and leaves its pictures in it."""


def reproduce(name: str, folder: Path, device: torch.device) -> Reproduction:
    """Run or continue one of EXPERIMENTS, as `run_experiment` does; raises ConfigError for an unknown one."""
    if name not in EXPERIMENTS:
        raise ConfigError(f"unknown experiment {name!r}; expected one of {', '.join(EXPERIMENTS)}")
    remake: Remake = import_module(f"models.reproduce.{name.replace('-', '_')}").remake
    return run_experiment(name, remake, folder, device, f"python -m models reproduce {name}")


def run_experiment(name: str, remake: Remake, folder: Path, device: torch.device, command: str) -> Reproduction:
    """Run or continue an experiment; `folder` then holds its result.json and pictures.

    Raises:
        FolderInUse: another program is at work in the folder.
    """
    with sole_writer(folder):
        found = remake(folder, device)
        result = Reproduction(**dict(found), name=name, command=command, commit=commit(), torch=torch.__version__)
        replace_file(folder / RESULT, (result.model_dump_json(indent=1) + "\n").encode())
    return result
