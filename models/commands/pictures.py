"""Chains and purified images, to look at."""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from models.bundle import load_bundle
from models.config import validate
from models.console import console, positive_int, progress_bar
from models.data import open_training_set
from models.device import resolve_device
from models.errors import CheckpointError, ConfigError
from models.evaluation.sample import take_images
from models.gradients import Energy
from models.image_files import read_image, write_png
from models.langevin import LangevinConfig, run_langevin
from models.networks import build_network
from models.networks.conditioning import classes_of
from models.noise import SeededNoise
from models.pixels import distance_l2, distance_linf, from_uint8, to_uint8
from models.training.build import build_parts
from models.training.diagnostics import save_grid
from models.training.distributed import ALONE
from models.training.energy_loop import potential
from models.training.initialisers import noise_source
from models.training.page_pictures import generated
from models.training.recipe import EnergyRecipe
from models.training.run import load_trained

MOST_COLUMNS = 16
"""Classes that a picture has columns for."""
ZOO = Path(__file__).parents[1] / "zoo"


def sample(options: argparse.Namespace) -> None:
    """Chains as a picture: of a bundle, from noise or test images; of a checkpoint, beside its generator's images."""
    device = resolve_device(options.device)
    of_bundle = options.source.is_dir()
    if options.start == ("generator" if of_bundle else "data"):
        raise ConfigError(
            f"--start {options.start}: {options.source} is {'a folder' if of_bundle else 'not a folder'}; "
            "expected a bundle for noise and data, a run's checkpoint.pt for generator and noise"
        )
    generator = torch.Generator(device).manual_seed(options.seed)
    starts, energy, sampler, columns = (_from_bundle if of_bundle else _from_checkpoint)(options, generator)
    sampler = sampler.model_copy(update={"num_steps": options.steps, "settle": None})
    with progress_bar("langevin steps", options.steps) as progress:
        task = progress.task_ids[0]
        noise = SeededNoise(generator)
        states, _ = run_langevin(energy, starts, sampler, randn_like=noise, callback=lambda *_: progress.advance(task))
    if options.start == "generator":
        save_grid(starts, options.out, beside=states)
    else:
        save_grid(states, options.out, columns)
    console.print(f"{options.out}: {options.count} chains of {options.steps} steps from {options.start}")


def sample_arguments(parser: argparse.ArgumentParser) -> None:
    """What `sample` reads, but for the device."""
    parser.add_argument("source", type=Path, help="a bundle's folder, or a run's checkpoint.pt")
    parser.add_argument("--start", choices=("noise", "data", "generator"), default="data")
    parser.add_argument("--steps", type=positive_int, default=500)
    parser.add_argument("--count", type=positive_int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("samples.png"))


class _Chains(NamedTuple):
    starts: Tensor
    energy: Energy
    sampler: LangevinConfig
    columns: int = 8


def _from_bundle(options: argparse.Namespace, generator: torch.Generator) -> _Chains:
    bundle = load_bundle(options.source, generator.device)
    image = bundle.manifest.image
    if options.start == "noise":
        empty = torch.empty(options.count, image.channels, image.height, image.width, device=generator.device)
        starts = SeededNoise(generator)(empty)
    else:
        starts = take_images(bundle.manifest, None, None, 0, options.count, generator.device).images
    return _Chains(starts, bundle.defence.energy, bundle.defence.preset)


def _from_checkpoint(options: argparse.Namespace, generator: torch.Generator) -> _Chains:
    """The averaged networks, and the potential that the run's chains follow; a column a class, where they are few."""
    state, table = load_trained(options.source, "energy")
    recipe = validate(EnergyRecipe, table, str(options.source))
    network = build_network(recipe.network.name, recipe.network.arguments)
    parts = build_parts(recipe, network, open_training_set(recipe.data), generator.device, ALONE)
    training = parts.training
    training.load_state_dict(state)
    network.load_state_dict(state["average"])
    network.eval().requires_grad_(False)
    classes = classes_of(network)
    labels = torch.arange(options.count, device=generator.device) % classes if classes else None
    energy, sampler = potential(recipe, parts, max(0, training.update - recipe.warm_start.updates), labels)
    if options.start == "noise":
        starts = noise_source(recipe.data.shape, generator)(options.count).images
        return _Chains(starts, energy, sampler, classes if 0 < classes <= MOST_COLUMNS else 8)
    maker = training.generator.average.network if training.generator else parts.starter
    if maker is None:
        raise CheckpointError(f"{options.source}: chains start from {recipe.initialiser.kind}, there is no generator")
    return _Chains(generated(maker, options.count, generator), energy, sampler)


def purify(options: argparse.Namespace) -> None:
    """Purify one image file and say what the classifier makes of it."""
    device = resolve_device(options.device)
    bundle = load_bundle(options.bundle, device)
    names = bundle.manifest.class_names
    image = from_uint8(read_image(options.image, bundle.manifest.image))[None]
    preset = bundle.manifest.preset(options.preset)
    purified = bundle.defence.purify(image.to(device), preset)
    result = to_uint8(purified[0].cpu())
    write_png(options.output, result)
    rounded = from_uint8(result)[None]
    steps = f"{'at most ' if preset.settle else ''}{preset.num_steps} steps"
    before, after = (int(bundle.defence.classify(x.to(device)).argmax()) for x in (image, rounded))
    console.print(
        f"{options.output}: moved L2 {float(distance_l2(image, rounded)):.3f}, "
        f"L-infinity {float(distance_linf(image, rounded)):.0f}/255; "
        f"{names[before]} before, {names[after]} after one chain of {steps}"
    )


def purify_arguments(parser: argparse.ArgumentParser) -> None:
    """What `purify` reads, but for the device."""
    parser.add_argument("image", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=ZOO / "cifar10-midrun")
    parser.add_argument("--preset")
