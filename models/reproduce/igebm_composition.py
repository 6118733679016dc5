"""Concepts of sprites put together: energies learned one by one and added, also where no combination was ever seen.

IGEBM (arXiv 1903.08689), its sections on compositional generation and on zero-shot cross products.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from models.data_sprites import SpriteGrid, SpriteLevels, sprite_grid
from models.reproduce.igebm_composition_plot import plot_compositions, plot_zero_shot
from models.reproduce.result import Finding, Number
from models.tasks.concept_runs import (
    AVOIDING,
    CROSSED,
    DECODER,
    EITHER,
    ENERGIES,
    MIDDLE,
    REAL,
    Concepts,
    Crossed,
    Settings,
)
from models.tasks.concepts import learn_recogniser
from models.training.recipe import load_energy_recipe

CURVES, SHEET = "zero_shot.png", "compositions.png"
Shares = Mapping[str, Mapping[str, float]]
"""By what was drawn, and concept: per cent of its levels that are recognised."""


def remake(folder: Path, device: torch.device, settings: Settings | None = None) -> Finding:
    """See `models.reproduce.experiments.Remake`."""
    settings, start = settings or Settings(), time.process_time()
    values = SpriteLevels(settings.scales, settings.rotations, settings.positions)
    grid = sprite_grid(settings.side, values)
    recogniser = learn_recogniser(settings.side, values, settings.recogniser_updates, settings.seed)
    concepts = Concepts(folder, settings, grid, recogniser, device)
    spent = time.process_time() - start + concepts.learn()
    start = time.process_time()
    right, shown = concepts.composed()
    logic, logical = concepts.logical()
    plot_compositions(shown | logical, folder / SHEET)
    spent += time.process_time() - start
    crossed = [concepts.crossed(fraction) for fraction in settings.fractions]
    curves = {
        kind: {method: [getattr(each.errors[method], kind) for each in crossed] for method in (ENERGIES, DECODER, REAL)}
        for kind in ("position", "scale")
    }
    plot_zero_shot(settings.fractions, curves, folder / CURVES)
    return _finding(settings, grid, right, logic, crossed, spent + sum(each.cpu_seconds for each in crossed))


def _finding(
    settings: Settings,
    grid: SpriteGrid,
    right: Shares,
    logic: Mapping[str, float],
    crossed: Sequence[Crossed],
    seconds: float,
) -> Finding:
    recipe = load_energy_recipe(settings.recipe, settings.overrides)
    # The size of images and the number of classes are those of the sprites and of each concept.
    arguments = {key: value for key, value in recipe.network.arguments.items() if key not in ("size", "classes")}
    return Finding(
        title="Composition and zero-shot cross products of sprites",
        source=(
            "IGEBM's figures of composed concepts (pictures) and of zero-shot cross products of size and position "
            "against a conditional decoder (a curve, whose values we do not have)."
        ),
        numbers=_numbers(right, logic, crossed, grid),
        setting=(
            f"{len(grid.images):,} sprites of {settings.side} pixels rendered here, levels {grid.values.sizes}. Each "
            f"energy: {recipe.network.name} {arguments}, {recipe.learning.updates} updates of "
            f"{recipe.learning.batch_size}, chains of {recipe.sampler.num_steps} steps. Judged: chains of "
            f"{settings.steps} steps from noise, by a recogniser learned on rendered sprites. Cross products: seen are "
            "the largest scale at every place, every scale at the middle place, and a fraction of the other "
            f"combinations; judged are those not seen, or all of them where all were, {settings.samples} chains each. "
            f"OR mixes two places' energies, NOT takes {settings.avoided:g} of a place's from shapes', "
            "a strength chosen on these same energies."
        ),
        why=explain(right, logic, crossed),
        pictures=(CURVES, SHEET),
        cpu_hours=seconds / 3600,
        details={
            "recognised, %": {names: dict(shares) for names, shares in right.items()},
            "recognised of OR and NOT, %": dict(logic),
            "cross products": [each.model_dump(mode="json", exclude={"asked"}) for each in crossed],
            "settings": settings.model_dump(mode="json"),
        },
    )


def _numbers(
    right: Shares, logic: Mapping[str, float], crossed: Sequence[Crossed], grid: SpriteGrid
) -> tuple[Number, ...]:
    numbers = []
    for each in (crossed[0], crossed[-1]):
        seen = f"{each.fraction:.0%} of combinations seen besides the slices"
        for method, errors in each.errors.items():
            for kind, unit, ours in (("place", "pixels", errors.position), ("scale", "%", 100 * errors.scale)):
                what = f"error of {kind}, {seen}: {method}"
                numbers.append(Number(what=what, paper=None, ours=round(ours, 2), unit=unit))
    for names in (*grid.levels, " + ".join(CROSSED), " + ".join(grid.levels), REAL):
        share = statistics.mean(right[names].values())
        chance = f" (chance {100 / grid.values.sizes[names]:.0f} %)" if names in grid.levels else ""
        numbers.append(Number(what=f"levels recognised, {names}{chance}", paper=None, ours=round(share, 1), unit="%"))
    for what, share in logic.items():
        numbers.append(Number(what=f"chains of {what}", paper=None, ours=round(share, 1), unit="%"))
    return tuple(numbers)


def explain(right: Shares, logic: Mapping[str, float], crossed: Sequence[Crossed]) -> str:
    """What the errors on unseen combinations say about adding energies, and what is not drawn well."""
    said = []
    for each in (crossed[0], crossed[-1]):
        ours, theirs = each.errors[ENERGIES], each.errors[DECODER]
        place, scale = (
            "added energies" if mine < other else "the decoder" if other < mine else "neither"
            for mine, other in ((ours.position, theirs.position), (ours.scale, theirs.scale))
        )
        said.append(
            f"With {each.fraction:.0%} of the combinations seen besides the slices, added energies miss the place by "
            f"{ours.position:.2f} pixels and the scale by {ours.scale:.0%}, the decoder by {theirs.position:.2f} and "
            f"{theirs.scale:.0%}: nearer in place: {place}; in scale: {scale}."
        )
    told = [f"{name} {right[name][name]:.0f} % (real sprites: {shares:.0f} %)" for name, shares in right[REAL].items()]
    said.append(
        f"The recogniser finds the level that one energy alone was asked to draw: {', '.join(told)}. Sprites are "
        "small, energies fully connected where the paper's are convolutions, and each learns for a minute. The decoder "
        "draws the mean of all that it saw of a combination."
    )
    ends = [logic[f"{EITHER}: {end} place"] for end in ("first", "last")]
    middle = [logic[f"{title}: {MIDDLE}"] for title in ("shape", AVOIDING)]
    shapes = [logic[f"{title}: shape"] for title in ("shape", AVOIDING)]
    said.append(
        f"OR draws either place in {sum(ends):.0f} % of the chains. NOT changes the share at the middle place from "
        f"{middle[0]:.0f} to {middle[1]:.0f} %, that of recognised shapes from {shapes[0]:.0f} to {shapes[1]:.0f} %."
    )
    return " ".join(said)
