"""Energies of sprites' concepts: learned, added, and judged by what a recogniser sees in what they draw."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from models.composed import Conditional
from models.config import Frozen
from models.console import console
from models.data_sprites import SpriteGrid, SpriteLevels
from models.files import replace_file
from models.gradients import Energy
from models.kept import kept_record, require_same
from models.langevin import run_langevin
from models.noise import SeededNoise
from models.pixels import from_uint8
from models.tasks.composition import EnergyMixture, conjunction, negation
from models.tasks.concepts import Recogniser, combinations, learn_decoder, seen_combinations
from models.training.frozen_parts import averaged_energy
from models.training.program import train_recipe
from models.training.recipe import load_energy_recipe
from models.training.run import load_trained

CROSSED = ("scale", "position")
ENERGIES, DECODER = "energies added", "decoder of both"
REAL = "real sprites"
EITHER, AVOIDING, MIDDLE = "first place OR last place", "shape NOT middle place", "middle place"


class Settings(Frozen):
    """The size of the experiment.

    Args:
        recipe: of every concept's energy; `overrides` make it another.
        fractions: of the combinations of a scale and a position, besides the two slices that are always seen.
        samples: chains of each combination, and of each set of concepts.
        steps: of the chains that are judged.
        avoided: the strength of an energy that is negated.
    """

    recipe: str = "sprites_concept"
    overrides: tuple[str, ...] = ()
    side: int = Field(default=16, ge=16)
    scales: tuple[float, ...] = (0.65, 0.85, 1.1, 1.45)
    rotations: tuple[float, ...] = SpriteLevels().rotations
    positions: tuple[float, ...] = (0.32, 0.5, 0.68)
    fractions: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    samples: int = Field(default=3, ge=1)
    composed: int = Field(default=128, ge=8)
    steps: int = Field(default=300, ge=1)
    avoided: float = Field(default=0.05, gt=0)
    recogniser_updates: int = Field(default=4_000, ge=1)
    decoder_updates: int = Field(default=1_000, ge=1)
    seed: int = 0


class Errors(Frozen):
    """How far what was drawn is from what was asked, over combinations that were not seen (or all, where all were).

    Args:
        position: mean distance in pixels.
        scale: mean relative error.
    """

    position: float
    scale: float


class Crossed(Frozen):
    """One fraction's result; `asked` is the settings that made it."""

    asked: Settings
    fraction: float
    images: int
    errors: dict[str, Errors]
    cpu_seconds: float


@dataclass(frozen=True)
class Concepts:
    """What is learned and drawn in `folder`; finished runs and cross products are found again.

    Args:
        recogniser: on the CPU, where images are judged.
        device: where energies learn and are sampled.
    """

    folder: Path
    settings: Settings
    grid: SpriteGrid
    recogniser: Recogniser
    device: torch.device

    def energy(self, run: str, concept: str, kept: Tensor | None = None) -> nn.Module:
        """The energy of a concept, learned on all sprites or those of `kept`, bool [N]."""
        settings, size = self.settings, self.grid.values.sizes[concept]
        arguments = (f"network.arguments.classes={size}", f"network.arguments.size={settings.side**2}")
        recipe = load_energy_recipe(settings.recipe, (*settings.overrides, f"seed={settings.seed}", *arguments))
        path, part = self.folder / run / concept, self.grid.dataset(concept, kept)
        train_recipe(recipe, path, resume=True, amend=False, device=self.device, part=part)
        return averaged_energy(path / "checkpoint.pt", self.device)

    @cached_property
    def networks(self) -> dict[str, nn.Module]:
        """The energies of all concepts, each learned on all sprites."""
        return {name: self.energy("concepts", name) for name in self.grid.levels}

    def drawn(self, energy: Energy, count: int) -> Tensor:
        """Chains of an energy from uniform noise, [count, 1, S, S] in [-1, 1]; on the CPU."""
        settings, device = self.settings, self.device
        sampler = load_energy_recipe(settings.recipe, settings.overrides).sampler
        sampler = sampler.model_copy(update={"num_steps": settings.steps})
        generator = torch.Generator(device).manual_seed(settings.seed)
        starts = torch.rand(count, 1, settings.side, settings.side, generator=generator, device=device) * 2.0 - 1.0
        return run_langevin(energy, starts, sampler, randn_like=SeededNoise(generator))[0].cpu()

    def added(self, networks: Mapping[str, nn.Module], levels: Mapping[str, Tensor]) -> Tensor:
        """Chains of the added energies with each concept's levels, int64 [N]."""
        count = len(next(iter(levels.values())))
        conditional = [Conditional(network, levels[name].to(self.device)) for name, network in networks.items()]
        return self.drawn(conjunction(conditional), count)

    def learn(self) -> float:
        """Learn the energies of all concepts; their CPU seconds, of earlier sessions too."""
        return self._learning_seconds("concepts", self.networks)

    @cached_property
    def asked(self) -> dict[str, Tensor]:
        """Each concept's level, int64 [N], of as many sprites of the grid as chains are composed."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        rows = torch.randint(len(self.grid.images), (self.settings.composed,), generator=generator)
        return {name: levels[rows] for name, levels in self.grid.levels.items()}

    def composed(self) -> tuple[dict[str, dict[str, float]], dict[str, Tensor]]:
        """By set of concepts: per cent of each concept's levels that are recognised, and the images [N, 1, S, S]."""
        shown = {
            " + ".join(names): self.added({name: self.networks[name] for name in names}, self.asked)
            for names in (*((name,) for name in self.networks), CROSSED, tuple(self.networks))
        }
        right = {title: self._recognised(images, self.asked, title.split(" + ")) for title, images in shown.items()}
        right[REAL] = self._recognised(from_uint8(self.grid.images), self.grid.levels, list(self.networks))
        return right, shown

    def logical(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """What OR and NOT draw: per cent of chains that are recognised so, and the images [N, 1, S, S].

        OR mixes the first and the last place's energies; NOT takes `avoided` of the middle place's from shapes'.
        """
        settings, last = self.settings, self.grid.values.sizes["position"] - 1
        temperature = load_energy_recipe(settings.recipe, settings.overrides).sampler.temperature
        first, middle, end = (
            Conditional(self.networks["position"], torch.full((settings.composed,), place, device=self.device))
            for place in (0, last // 2, last)
        )
        shape = Conditional(self.networks["shape"], self.asked["shape"].to(self.device))
        shown, shares = {}, {}
        for title, energy, places in (
            (EITHER, EnergyMixture((first, end), (0.5, 0.5), temperature), {"first place": 0, "last place": last}),
            ("shape", shape, {MIDDLE: last // 2}),
            (AVOIDING, negation(shape, middle, settings.avoided), {MIDDLE: last // 2}),
        ):
            shown[title] = self.drawn(energy, settings.composed)
            found = self.recogniser.concepts(shown[title], self.grid.values)
            for told, place in places.items():
                shares[f"{title}: {told}"] = 100 * float((found["position"] == place).float().mean())
            if "shape" in title:
                shares[f"{title}: shape"] = 100 * float((found["shape"] == self.asked["shape"]).float().mean())
        return shares, shown

    def crossed(self, fraction: float) -> Crossed:
        """Energies of scale and of position, and a decoder of both, from the slices and a fraction of the rest."""
        path = self.folder / f"fraction{fraction:g}" / "errors.json"
        if (found := kept_record(path, Crossed, "errors")) is not None:
            require_same(path, found.asked.model_dump(), self.settings.model_dump())
            return found
        settings, grid = self.settings, self.grid
        sizes = (grid.values.sizes[CROSSED[0]], grid.values.sizes[CROSSED[1]])
        seen = seen_combinations(sizes, (sizes[0] - 1, sizes[1] // 2), fraction, settings.seed)
        kept = seen.flatten()[combinations(grid, *CROSSED)]
        everything = bool(seen.all())
        networks = {
            name: self.networks[name] if everything else self.energy(path.parent.name, name, kept) for name in CROSSED
        }
        learning = self._learning_seconds(path.parent.name, () if everything else CROSSED)
        start = time.process_time()
        decoder = learn_decoder(grid, CROSSED, kept, settings.decoder_updates, settings.seed)
        asked = (seen if everything else ~seen).nonzero().repeat(settings.samples, 1)
        levels = dict(zip(CROSSED, asked.unbind(1), strict=True))
        drawn = {ENERGIES: self.added(networks, levels), DECODER: decoder(*levels.values())}
        errors = {method: recognised_errors(self.recogniser, x, levels, grid.values) for method, x in drawn.items()}
        errors[REAL] = recognised_errors(self.recogniser, from_uint8(grid.images), grid.levels, grid.values)
        result = Crossed(
            asked=settings,
            fraction=fraction,
            images=int(kept.sum()),
            errors=errors,
            cpu_seconds=learning + time.process_time() - start,
        )
        replace_file(path, result.model_dump_json(indent=1).encode())
        console.print(f"{path}: {result.errors}")
        return result

    def _learning_seconds(self, run: str, concepts: Iterable[str]) -> float:
        """CPU seconds that a run's finished energies took, in whatever session."""
        states = (load_trained(self.folder / run / name / "checkpoint.pt", "energy")[0] for name in concepts)
        return sum(float(state["cpu_seconds"]) for state in states)

    def _recognised(self, images: Tensor, levels: Mapping[str, Tensor], names: list[str]) -> dict[str, float]:
        found = self.recogniser.concepts(images, self.grid.values)
        return {name: 100 * float((found[name] == levels[name]).float().mean()) for name in names}


def recognised_errors(
    recogniser: Recogniser, images: Tensor, levels: Mapping[str, Tensor], values: SpriteLevels
) -> Errors:
    """Of images [N, 1, S, S] that were asked to have these levels of scale and position."""
    some = torch.zeros_like(levels["scale"])
    asked = values.factors({"shape": some, "rotation": some, "scale": levels["scale"], "position": levels["position"]})
    scale, x, y = recogniser(images)[2].unbind(1)
    distance = torch.hypot(x - asked.x, y - asked.y) * images.shape[3]
    return Errors(position=float(distance.mean()), scale=float(((scale - asked.scale).abs() / asked.scale).mean()))
