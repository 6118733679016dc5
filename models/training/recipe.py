"""Recipes: one TOML file an experiment, in `models/recipes` or anywhere on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from models.config import Frozen, apply_overrides, read_toml, validate
from models.data import DataSection
from models.errors import ConfigError
from models.langevin import LangevinConfig
from models.pixels import Normalisation
from models.training.classifier_loop import ClassifierTraining
from models.training.energy_loop import MidRun
from models.training.warm_start import WarmStart

FOLDER = Path(__file__).parent.parent / "recipes"


class NetworkSection(Frozen):
    """An architecture by name and its constructor arguments."""

    name: str
    arguments: dict[str, Any] = {}


class ClassifierRecipe(Frozen):
    """Everything that determines a classifier."""

    kind: Literal["classifier"]
    seed: int = 0
    data: DataSection
    network: NetworkSection
    normalisation: Normalisation
    training: ClassifierTraining

    @model_validator(mode="after")
    def _labels_are_kept(self) -> "ClassifierRecipe":
        if self.data.streaming:
            raise ValueError("data.streaming: only energies learn from streams, which have no labels")
        return self


class EnergyRecipe(Frozen):
    """Everything that determines an energy learned mid-run."""

    kind: Literal["energy"]
    seed: int = 0
    data: DataSection
    network: NetworkSection
    sampler: LangevinConfig
    warm_start: WarmStart
    mid_run: MidRun


Recipe = Annotated[ClassifierRecipe | EnergyRecipe, Field(discriminator="kind")]


def load_recipe(name: str, overrides: Sequence[str] = ()) -> ClassifierRecipe | EnergyRecipe:
    """A recipe by file path or by its name in `models/recipes`, with `a.b=value` overrides."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.exists():
        known = ", ".join(sorted(recipe.stem for recipe in FOLDER.glob("*.toml")))
        raise ConfigError(f"recipe {name!r} not found; give a .toml file or one of: {known}")
    adapter: TypeAdapter[ClassifierRecipe | EnergyRecipe] = TypeAdapter(Recipe)
    return validate(adapter, apply_overrides(read_toml(path), overrides), str(path))
