"""EBM Life Cycle's point (arXiv 2205.12243) on 8x8 digits: fidelity of three kinds of energies against chain length."""

from collections.abc import Iterator
from pathlib import Path

import torch

from models.evaluation.life_cycle import FULL, Curve, LifeCycle, Measuring, Point
from models.evaluation.life_cycle_models import ENERGIES, MODELS
from models.evaluation.life_cycle_run import FIGURE, RESULT, SHEET, run_life_cycle
from models.evaluation.long_chains import spent_seconds
from models.reproduce.result import Finding, Number
from models.training.run import load_trained

DATA = "digits"


def remake(
    folder: Path,
    device: torch.device,
    measuring: Measuring = FULL,
    features: tuple[str, ...] = ("efflite0", "classifier"),
    overrides: tuple[str, ...] = (),
) -> Finding:
    """Train, run chains to a million steps, score them; what is there already is kept."""
    result = run_life_cycle(DATA, folder, device, measuring, features, overrides)
    seconds = sum(load_trained(folder / stage / "checkpoint.pt", "energy")[0]["cpu_seconds"] for stage in ENERGIES)
    seconds += sum(spent_seconds(folder / f"chains-{name}") for name in MODELS)
    steps, chains = measuring.steps[-1], measuring.chains
    updates = {model.name: model.recipe[model.regime.replace("-", "_")]["updates"] for model in result.models}
    return Finding(
        title="The life cycle of one network",
        source="EBM Life Cycle shows it in pictures of chains and in energies, for CIFAR-10 and larger images.",
        numbers=tuple(_numbers(result)),
        setting=(
            f"{', '.join(f'{DATA}_life_{stage}' for stage in ENERGIES)}"
            f"{' with ' + '; '.join(overrides) if overrides else ''}: one network and one objective, "
            f"{', '.join(f'{name}-run {count:,} updates' for name, count in updates.items())}; then {chains} chains "
            f"of each from where they started in learning, and as many from noise, of {steps:,} steps."
        ),
        why=(
            "The paper has no such numbers; its claim is the order of the curves. Distances are of "
            f"{chains} images, of which the floor (as many other training images) says what that alone costs."
        ),
        pictures=(FIGURE, SHEET),
        files=(RESULT, *(f"{stage}.safetensors" for stage in ENERGIES)),
        cpu_hours=round(seconds / 3600, 2),
    )


def _numbers(result: LifeCycle) -> Iterator[Number]:
    """Each curve where its model's chains ended in learning, and at its end; the first feature network's distance."""
    name = f"FD-{next(iter(result.features))}"
    lifetimes = {model.name: model.lifetime for model in result.models}
    for curve in result.curves:
        yield _number(curve, _at_lifetime(curve, lifetimes[curve.model]), name)
        yield _number(curve, curve.points[-1], name)
    floor = next(each for each in result.noisy_data if each.name == name)
    yield Number(what=f"training images with learning's noise: {name}", paper=None, ours=round(floor.samples.value, 1))
    yield Number(what=f"training images: {name}", paper=None, ours=round(floor.floor.value, 1))


def _at_lifetime(curve: Curve, lifetime: float) -> Point:
    """The point after the number of steps that is nearest, by ratio, to those of negatives in learning."""
    later = [point for point in curve.points if point.step]
    return min(later, key=lambda point: max(point.step / lifetime, lifetime / point.step))


def _number(curve: Curve, point: Point, name: str) -> Number:
    found = next(each for each in point.scores if each.name == name)
    what = f"{curve.model}-run, from {curve.start}, {point.step:,} steps: {name}"
    return Number(what=what, paper=None, ours=round(found.samples.value, 1))
