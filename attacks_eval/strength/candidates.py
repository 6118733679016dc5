"""What is tried: defences put together from trained parts, as `candidates.toml` lists them."""

from pathlib import Path

from pydantic import Field, model_validator

from models.config import Frozen, read_toml, validate
from models.errors import ConfigError
from models.purifier import Preset

LIST = Path(__file__).parent / "candidates.toml"


class Part(Frozen):
    """A network to train: a recipe of `models/recipes`, changed by `overrides`, after the parts that it begins from.

    `{NAME}` in an override is where the earlier part NAME has its weights.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


class Mixed(Frozen):
    """A classifier made of two, bundles or parts: see `models.networks.mixed_classifier`."""

    robust: str
    accurate: str
    robust_weight: float
    sharpness: float


class Candidate(Frozen):
    """A defence of the table.

    Args:
        about: one sentence on what is tried.
        energy, classifier: a bundle of `models/zoo`, whose part of that kind is taken, or one of the list's `parts`, or
            for a classifier of its `mixed`. A part that is a classifier has an energy within it
            (`models.networks.joint_energy`); `own` is the one within this candidate's.
        chain: the preset; 0 steps is the classifier alone.
        cooled: the noise of the chain falls linearly, to nothing at its end, and the drift stays (tempering).
        sigma: of the Gaussian noise under which it is certified, in [0, 1] pixel units; None is not certified.
        refuse_below: it may refuse to answer, see `attacks_eval.judge.JudgeConfig`.
        attacks: further attacks, meant for this candidate, as `attacks_eval run --attack` reads them.
        transfer_from: a classifier, named as its own is, on which a transfer attack is made too.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    about: str
    energy: str
    classifier: str
    chain: Preset
    # Left out of what is written where they are at their defaults: rows from before still compare as equal.
    cooled: bool = Field(default=False, exclude_if=lambda value: not value)
    transfer_from: str | None = Field(default=None, exclude_if=lambda value: value is None)
    sigma: float | None = Field(default=None, gt=0)
    refuse_below: float = Field(default=0.0, ge=0)
    attacks: tuple[str, ...] = ()


class CandidateList(Frozen):
    """All of them, in the table's order; `title` says which table of the page is theirs."""

    title: str = Field(default="search", pattern=r"^[a-z]+$")
    parts: dict[str, Part] = {}
    mixed: dict[str, Mixed] = {}
    candidates: tuple[Candidate, ...] = Field(alias="candidate")

    @model_validator(mode="after")
    def _names_are_one_each(self) -> "CandidateList":
        names = [each.name for each in self.candidates]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"candidates must have names of their own, got {', '.join(doubled)} twice")
        for name, part in self.parts.items():
            if unknown := set(part.after) - self.parts.keys():
                raise ValueError(f"parts.{name}.after: no part is called {', '.join(sorted(unknown))}")
        return self

    def named(self, name: str) -> Candidate:
        """The candidate of that name; raises ConfigError that lists the known ones."""
        for each in self.candidates:
            if each.name == name:
                return each
        raise ConfigError(f"unknown candidate {name!r}; known: {', '.join(each.name for each in self.candidates)}")


def read_candidates(path: Path = LIST) -> CandidateList:
    """The list in a TOML file; raises ConfigError that names the key."""
    return validate(CandidateList, read_toml(path), str(path))
