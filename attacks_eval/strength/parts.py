"""A candidate's networks: of a bundle that ships, or trained by their recipes where they are not there yet."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from attacks_eval.strength.candidates import Candidate, CandidateList
from models.bundle import Bundle, load_bundle
from models.errors import ConfigError
from models.networks.joint_energy import JointEnergy
from models.pixels import Normalisation
from models.purifier import PurifiedClassifier
from models.training.frozen_parts import averaged_energy, learned, trained_classifier
from models.training.kept_parts import keep, mix
from models.training.recipe import ClassifierRecipe, EnergyRecipe, load_recipe
from models.training.run import read_metrics

OWN = "own"
"""Instead of an energy's name: the one within the classifier."""
ZOO = Path(__file__).parents[2] / "models" / "zoo"
KEPT = Path(__file__).parents[1] / "reports" / "strength" / "parts"
"""Parts that need no training any more: a folder each, with weights.safetensors, recipe.json and metrics.jsonl."""


@dataclass(frozen=True)
class Parts:
    """Where a list's parts are trained and found again.

    Args:
        folder: of runs, one a part.
    """

    listed: CandidateList
    folder: Path
    device: torch.device

    def defence(self, candidate: Candidate) -> PurifiedClassifier:
        """The candidate, on the device; trains what is missing."""
        classifier, normalisation = self.classifier(candidate.classifier)
        own = candidate.energy == OWN
        energy = JointEnergy(classifier, normalisation) if own else self._energy(candidate.energy)
        defence = PurifiedClassifier(energy, classifier, normalisation, candidate.chain)
        moved: PurifiedClassifier = defence.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return moved

    def _path(self, name: str) -> Path:
        """Where a part's weights are, once they are there."""
        return KEPT / name if (KEPT / name).is_dir() else self._trained(name)

    def _trained(self, name: str) -> Path:
        """A part's checkpoint; a finished run is left as it is, an interrupted one goes on."""
        # Imported here: it needs the `train` extra, a list of bundles does not.
        from models.training.program import train_recipe

        train_recipe(self._recipe(name), self.folder / name, resume=True, amend=False, device=self.device)
        return self.folder / name / "checkpoint.pt"

    def _recipe(self, name: str) -> ClassifierRecipe | EnergyRecipe:
        part = self.listed.parts[name]
        overrides = part.overrides
        for earlier in part.after:
            path = str(self._path(earlier))
            overrides = tuple(each.replace(f"{{{earlier}}}", path) for each in overrides)
        return load_recipe(part.recipe, overrides)

    def _energy(self, name: str) -> nn.Module:
        if name not in self.listed.parts:
            return self._bundle(name).defence.energy
        part = self.listed.parts[name]
        if load_recipe(part.recipe, part.overrides).kind == "classifier":
            return JointEnergy(*self.classifier(name))
        return averaged_energy(self._path(name), self.device)

    def classifier(self, name: str) -> tuple[nn.Module, Normalisation]:
        """The classifier of that name, and what it reads; trains what is missing."""
        if name in self.listed.mixed:
            return trained_classifier(self._mix(name), self.device)
        if name in self.listed.parts:
            return trained_classifier(self._path(name), self.device)
        shipped = self._bundle(name).defence
        return shipped.classifier, shipped.normalisation

    def _mix(self, name: str) -> Path:
        """The folder of a mixed classifier, written anew: it costs nothing."""
        wanted, folder = self.listed.mixed[name], self.folder / name
        robust, accurate = (
            self._path(each) if each in self.listed.parts else ZOO / each for each in (wanted.robust, wanted.accurate)
        )
        mix(robust, accurate, wanted.robust_weight, wanted.sharpness, folder)
        return folder

    def keep(self, names: Sequence[str]) -> None:
        """Copy trained parts to those that need no training any more, with their recipes as the list has them."""
        # All are found first: once an earlier part is kept, a run that began from it began from another place.
        for name, path in {name: self._path(name) for name in names}.items():
            if path.is_dir():
                continue
            part = self.listed.parts[name]
            recipe = load_recipe(part.recipe, part.overrides)
            weights, _ = learned(path, recipe.kind)
            keep(KEPT / name, weights, json.loads(recipe.model_dump_json()), read_metrics(path.parent))

    def _bundle(self, name: str) -> Bundle:
        if not (ZOO / name).is_dir():
            known = ", ".join(
                (*self.listed.parts, *self.listed.mixed, *sorted(each.name for each in ZOO.iterdir() if each.is_dir()))
            )
            raise ConfigError(f"{name!r} is neither a part, nor mixed, nor a bundle; known: {known}")
        return load_bundle(ZOO / name, self.device)
