"""Recipes: one TOML file an experiment, in `models/recipes` or anywhere on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from models.config import Frozen, apply_overrides, read_toml, validate
from models.errors import ConfigError
from models.langevin import LangevinConfig
from models.pixels import Normalisation
from models.training.classifier_loop import ClassifierTraining
from models.training.energy_loop import MidRun
from models.training.warm_start import WarmStart

FOLDER = Path(__file__).parent.parent / "recipes"


class DataSection(Frozen):
    """Which dataset, and optionally the folder that holds its files."""

    name: Literal["cifar10", "mnist", "digits"]
    folder: Path | None = None


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
