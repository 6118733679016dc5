"""The models of the life cycle: one network and sampler, learned short-run, mid-run and long-run, and where they start.

FOLDER/
  classifier, short, mid, prior, long   training runs; `long` corrects `prior`, and both start from `short`'s generator
  short.safetensors, ...                the averaged weights, with the recipe as metadata
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from models.errors import ConfigError
from models.evaluation.chain_starts import generated_start, uniform_start
from models.evaluation.density import spread
from models.evaluation.density_model import DensityModel, density_of_checkpoints
from models.evaluation.life_cycle import Measuring, ModelRecord, RealImages, Walk, run_both, with_noise
from models.evaluation.long_chains import nats
from models.files import replace_file
from models.pixels import from_uint8
from models.streams import Stream
from models.training.frozen_parts import frozen, starting_generator
from models.training.program import train_recipe
from models.training.recipe import ClassifierRecipe, EnergyRecipe, load_recipe
from models.training.run import load_checkpoint, read_metrics
from models.training.sections import FromData, FromGenerator, FromNoise

CLASSIFIER = "classifier"
ENERGIES = ("short", "mid", "prior", "long")
MODELS = ("short", "mid", "long")
"""The energies whose chains are measured: the prior is a part of `long`."""
SHARED = ("data", "network", "sampler")
SHARED_LEARNING = ("batch_size", "data_noise")


@dataclass(frozen=True)
class Recipes:
    """What each stage learns; `energies` are in the order in which they need each other."""

    classifier: ClassifierRecipe
    energies: Mapping[str, EnergyRecipe]


def stage_recipes(data: str, folder: Path, overrides: Sequence[str]) -> Recipes:
    """`DATA_classifier` and `DATA_life_STAGE`, which read each other's runs in `folder`; overrides are STAGE.A.B=VALUE.

    Raises:
        ConfigError: an override names no stage, or energies would differ in more than their chains' starts and lives.
    """
    stages = (CLASSIFIER, *ENERGIES)
    given: dict[str, list[str]] = {stage: [] for stage in stages}
    for override in overrides:
        stage, _, rest = override.partition(".")
        if stage not in stages:
            raise ConfigError(f"override {override!r}: expected STAGE.KEY=VALUE, STAGE one of {', '.join(stages)}")
        given[stage].append(rest)
    generator, prior = (json.dumps(str(folder / stage / "checkpoint.pt")) for stage in ("short", "prior"))
    runs = {
        "prior": [f"initialiser.path={generator}"],
        "long": [f"initialiser.path={generator}", f"prior.energy={prior}"],
    }
    classifier = load_recipe(f"{data}_classifier", given[CLASSIFIER])
    energies = {stage: load_recipe(f"{data}_life_{stage}", [*runs.get(stage, ()), *given[stage]]) for stage in ENERGIES}
    assert isinstance(classifier, ClassifierRecipe)
    checked = {stage: recipe for stage, recipe in energies.items() if isinstance(recipe, EnergyRecipe)}
    _check_same(checked)
    return Recipes(classifier, checked)


def train_stages(recipes: Recipes, folder: Path, device: torch.device) -> None:
    """Train what is not trained yet, each stage in its own folder, from where it was stopped."""
    train_recipe(recipes.classifier, folder / CLASSIFIER, resume=True, amend=False, device=device)
    for stage, recipe in recipes.energies.items():
        train_recipe(recipe, folder / stage, resume=True, amend=False, device=device)
        tensors = {name: value.contiguous() for name, value in _averaged(folder, stage).items()}
        metadata = {"recipe": recipe.model_dump_json()}
        replace_file(folder / f"{stage}.safetensors", save_safetensors(tensors, metadata))


def density(recipes: Recipes, model: str, folder: Path, device: torch.device) -> DensityModel:
    """What the chains of `short`, `mid` or `long` sample: its energy, and all that its recipe's prior adds."""
    prior = recipes.energies[model].prior
    paths = [folder / model / "checkpoint.pt"]
    if prior is not None and prior.energy is not None:
        paths.append(prior.energy)
    return density_of_checkpoints(paths, None if prior is None else prior.tau, device)


def own_start(
    recipe: EnergyRecipe, checkpoint: Path, images: Tensor, stream: Stream, device: torch.device
) -> tuple[str, Tensor]:
    """Where the recipe's chains start, and as many starts as `images` [N, C, H, W] in [-1, 1] (which are data's)."""
    initial = recipe.initialiser
    if isinstance(initial, FromData):
        return "data", images.to(device)
    if isinstance(initial, FromNoise):
        return "noise", uniform_start(tuple(images.shape), stream, device)
    path = checkpoint if isinstance(initial, FromGenerator) else initial.path
    generator = frozen(starting_generator(path), device)
    return "generator", generated_start(generator, _latent_size(generator), len(images), stream, device)


def walk(
    name: str, recipes: Recipes, real: RealImages, measuring: Measuring, folder: Path, device: torch.device
) -> Walk:
    """The chains of `short`, `mid` or `long`, run to the last step, and what is known of the model."""
    recipe, checkpoint = recipes.energies[name], folder / name / "checkpoint.pt"
    stream = Stream((measuring.seed, "life cycle"))
    kind, own = own_start(recipe, checkpoint, from_uint8(real.starts), stream.child(name), device)
    noise = uniform_start(tuple(own.shape), stream.child("noise"), device)
    model = density(recipes, name, folder, device)
    snapshots, diverged = run_both(model, {kind: own, "noise": noise}, measuring, folder / f"chains-{name}")
    energy, temperature = model.target()
    noisy = with_noise(real.reference, recipe.learning.data_noise, stream.child("noise on data"))
    energies = nats(energy, noisy.to(device), temperature).cpu()
    last = _last_quarter(folder / name)
    record = ModelRecord(
        name=name,
        regime=recipe.regime,
        weights=model.digest,
        recipe=recipe.model_dump(mode="json"),
        lifetime=lifetime(recipe, folder / name),
        energy_gap=spread(torch.tensor([line["energy_gap"] for line in last])),
        data_energies=spread(energies),
    )
    return Walk(record, energies, snapshots, diverged)


def lifetime(recipe: EnergyRecipe, folder: Path) -> float:
    """Langevin steps that negatives had behind them, on average over the last quarter of the run in `folder`."""
    last = _last_quarter(folder)
    return float(recipe.sampler.num_steps * sum(line.get("age", 1.0) for line in last) / len(last))


def _last_quarter(folder: Path) -> list[dict[str, Any]]:
    lines = read_metrics(folder)
    return [line for line in lines if "energy_gap" in line][-max(2, len(lines) // 4) :]


def _check_same(energies: Mapping[str, EnergyRecipe]) -> None:
    first = energies["short"]
    for stage, recipe in energies.items():
        pairs = [(name, getattr(first, name), getattr(recipe, name)) for name in SHARED]
        pairs += [(name, getattr(first.learning, name), getattr(recipe.learning, name)) for name in SHARED_LEARNING]
        for name, expected, found in pairs:
            if found != expected:
                raise ConfigError(f"{stage}.{name}: expected that of short, {expected!r}, got {found!r}")


def _averaged(folder: Path, stage: str) -> dict[str, Tensor]:
    average: dict[str, Tensor] = load_checkpoint(folder / stage / "checkpoint.pt")["average"]
    return average


def _latent_size(generator: nn.Module) -> int:
    size = generator.latent_size
    assert isinstance(size, int)
    return size
