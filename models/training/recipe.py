"""Recipes: one TOML file an experiment, in `models/recipes` or anywhere on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, model_validator

from models.config import Frozen, apply_overrides, read_toml, validate
from models.data import DataSection
from models.errors import ConfigError
from models.langevin import LangevinConfig
from models.pixels import Normalisation
from models.training.classifier_loop import ClassifierTraining
from models.training.sections import (
    FromData,
    FromGenerator,
    ImplicitRun,
    Initial,
    Learning,
    LongRun,
    NetworkSection,
    Prior,
    Restarting,
)
from models.training.warm_start import WarmStart

REGIMES = ("short_run", "mid_run", "long_run", "implicit_run")
FOLDER = Path(__file__).parent.parent / "recipes"


class ClassifierRecipe(Frozen):
    """Everything that determines a classifier."""

    kind: Literal["classifier"]
    seed: int = 0
    data: DataSection
    network: NetworkSection
    weights: Path | None = Field(default=None, exclude_if=lambda value: value is None)
    """A run's checkpoint.pt, whose averaged weights are the first ones here, or a bundle's folder."""
    normalisation: Normalisation
    training: ClassifierTraining

    @model_validator(mode="after")
    def _labels_are_kept(self) -> "ClassifierRecipe":
        if self.data.streaming:
            raise ValueError("data.streaming: only energies learn from streams, which have no labels")
        return self


class EnergyRecipe(Frozen):
    """Everything that determines an energy; its regime is named by the one section of the four that is there."""

    kind: Literal["energy"]
    seed: int = 0
    data: DataSection
    network: NetworkSection
    # Left out of what is written where there are none: runs from before still compare as equal.
    weights: Path | None = Field(default=None, exclude_if=lambda value: value is None)
    """A run's checkpoint.pt, whose averaged weights are the first ones here, or a bundle's folder."""
    sampler: LangevinConfig
    warm_start: WarmStart = WarmStart(updates=0)
    initialiser: Initial = FromData()
    prior: Prior | None = None
    short_run: Restarting | None = None
    mid_run: Restarting | None = None
    long_run: LongRun | None = None
    implicit_run: ImplicitRun | None = None

    @model_validator(mode="after")
    def _one_regime(self) -> "EnergyRecipe":
        given = list(self._given)
        if len(given) != 1:
            raise ValueError(f"expected one section of {', '.join(REGIMES)}; got {', '.join(given) or 'none of them'}")
        if self.long_run is not None and isinstance(self.initialiser, FromGenerator):
            raise ValueError("initialiser.kind: 'generator' learns where short chains end; long_run takes another kind")
        return self

    @model_validator(mode="after")
    def _chains_are_as_long_as_what_is_differentiated(self) -> "EnergyRecipe":
        if self.implicit_run is not None:
            steps = [count for _, count in self.implicit_run.num_steps or ((0, self.sampler.num_steps),)]
            if self.implicit_run.kl_steps > min(steps):
                raise ValueError(f"implicit_run.kl_steps {self.implicit_run.kl_steps} of chains of {min(steps)} steps")
        return self

    @property
    def learning(self) -> Learning:
        """The section of the regime."""
        (section,) = self._given.values()
        return section

    @property
    def regime(self) -> str:
        """`short-run`, `mid-run`, `long-run` or `implicit-run`."""
        (name,) = self._given
        return name.replace("_", "-")

    @property
    def unit(self) -> float:
        """What energies are divided by in the objective and in the log: T, or 1 where the objective is in f itself."""
        return self.sampler.temperature if self.implicit_run is None else 1.0

    @property
    def _given(self) -> dict[str, Learning]:
        sections: dict[str, Learning | None] = {name: getattr(self, name) for name in REGIMES}
        return {name: section for name, section in sections.items() if section is not None}


Recipe = Annotated[ClassifierRecipe | EnergyRecipe, Field(discriminator="kind")]


def recipe_names() -> list[str]:
    """Those in `models/recipes`, such as `digits_midrun` or `paper/cifar10_short`."""
    paths = sorted(FOLDER.rglob("*.toml"))
    return [path.relative_to(FOLDER).with_suffix("").as_posix() for path in paths if not path.match("*_presets.toml")]


def load_recipe(name: str, overrides: Sequence[str] = ()) -> ClassifierRecipe | EnergyRecipe:
    """A recipe by file path or by its name in `models/recipes`, with `a.b=value` overrides."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.exists():
        raise ConfigError(f"recipe {name!r} not found; give a .toml file or one of: {', '.join(recipe_names())}")
    adapter: TypeAdapter[ClassifierRecipe | EnergyRecipe] = TypeAdapter(Recipe)
    return validate(adapter, apply_overrides(read_toml(path), overrides), str(path))


def load_energy_recipe(name: str, overrides: Sequence[str] = ()) -> EnergyRecipe:
    """The same for an energy; raises ConfigError for a recipe of another kind."""
    recipe = load_recipe(name, overrides)
    if not isinstance(recipe, EnergyRecipe):
        raise ConfigError(f"recipe {name!r}: expected kind 'energy', got {recipe.kind!r}")
    return recipe
