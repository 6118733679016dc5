"""Chains and purified images, to look at."""

import argparse
import io
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from models.bundle import load_bundle
from models.console import console, positive_int, progress_bar
from models.device import resolve_device
from models.errors import CheckpointError, ConfigError
from models.evaluation.sample import take_images
from models.files import replace_file
from models.gradients import Energy
from models.image_files import read_image, write_png
from models.langevin import LangevinConfig, run_langevin
from models.noise import SeededNoise
from models.pixels import distance_l2, distance_linf, from_uint8, to_uint8
from models.tasks.generation import Ensemble, Round, Together, generate, walk
from models.training.diagnostics import save_grid
from models.training.initialisers import labelled_source, noise_source
from models.training.page_pictures import generated
from models.training.trained import TrainedEnergy, load_history, load_trained_energy

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
    _check_calls(options, of_bundle)
    generator = torch.Generator(device).manual_seed(options.seed)
    if options.through or options.calls > 1:
        states, columns = _in_calls(options, generator)
        _write(states, options.out, columns)
        console.print(f"{options.out}: {options.count} chains, calls of {options.steps} steps, from noise")
        return
    starts, energy, sampler, columns = (_from_bundle if of_bundle else _from_checkpoint)(options, generator)
    sampler = sampler.model_copy(update={"num_steps": options.steps, "settle": None})
    with progress_bar("langevin steps", options.steps) as progress:
        task = progress.task_ids[0]
        noise = SeededNoise(generator)
        states, _ = run_langevin(energy, starts, sampler, randn_like=noise, callback=lambda *_: progress.advance(task))
    if options.start == "generator" and options.out.suffix != ".npz":
        save_grid(starts, options.out, beside=states)
    else:
        _write(states, options.out, columns)
    console.print(f"{options.out}: {options.count} chains of {options.steps} steps from {options.start}")


def sample_arguments(parser: argparse.ArgumentParser) -> None:
    """What `sample` reads, but for the device."""
    parser.add_argument("source", type=Path, help="a bundle's folder, or a run's checkpoint.pt")
    parser.add_argument("--start", choices=("noise", "data", "generator"), default="data")
    parser.add_argument("--steps", type=positive_int, default=500)
    parser.add_argument("--count", type=positive_int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("samples.png"), help=".png, or .npz for `fidelity`")
    run = parser.add_argument_group("for a run's checkpoint")
    run.add_argument("--classes", help="the chains' classes, by name or number: cat,dog (default: all, in turn)")
    through = "chains that are one class after the other, --steps as each: cat,dog,cat; a column a class"
    run.add_argument("--through", metavar="CLASSES", help=through)
    run.add_argument("--history", type=positive_int, help="sample the last weights that the run kept, so many together")
    together = "their mean, or one a call in turn (default averaged)"
    run.add_argument("--together", choices=get_args(Together), default="averaged", help=together)
    calls = "calls of --steps: each moves half of the chains; now and then one starts anew or changes class"
    run.add_argument("--calls", type=positive_int, default=1, help=calls)


def _check_calls(options: argparse.Namespace, of_bundle: bool) -> None:
    given = [name for name in ("classes", "through", "history") if getattr(options, name) is not None]
    given += ["calls"] if options.calls > 1 else []
    if given and of_bundle:
        raise ConfigError(f"--{given[0]}: {options.source} is a folder; expected a run's checkpoint.pt")
    if options.start == "generator" and (options.through or options.calls > 1):
        raise ConfigError("--start generator: chains of --through and --calls start from noise")
    if options.through and options.classes:
        raise ConfigError(f"--through {options.through} says the classes: leave --classes {options.classes} out")
    if options.together == "switched" and options.calls == 1:
        raise ConfigError("--together switched: a single call would be the first weights alone; expected --calls")


def _write(images: Tensor, out: Path, columns: int) -> None:
    """A picture, or the images themselves, uint8, where the name ends in .npz."""
    if out.suffix == ".npz":
        content = io.BytesIO()
        np.savez_compressed(content, images=to_uint8(images).cpu().numpy())
        replace_file(out, content.getbuffer())
    else:
        save_grid(images, out, columns)


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
    trained = load_trained_energy(options.source, generator.device)
    classes = _classes(options, trained)
    labels = torch.tensor(classes, device=generator.device).repeat(options.count)[: options.count] if classes else None
    energy = _ensemble(options, trained).energy(0, labels)
    if options.start == "noise":
        starts = noise_source(trained.data.shape, generator)(options.count).images
        return _Chains(starts, energy, trained.sampler, len(classes) if 0 < len(classes) <= MOST_COLUMNS else 8)
    learned = trained.parts.training.generator
    maker = learned.average.network if learned else trained.parts.starter
    if maker is None:
        kind = trained.recipe.initialiser.kind
        raise CheckpointError(f"{options.source}: chains start from {kind}, there is no generator")
    return _Chains(generated(maker, options.count, generator), energy, trained.sampler)


def _in_calls(options: argparse.Namespace, generator: torch.Generator) -> tuple[Tensor, int]:
    """Chains of several calls, and the columns of their picture: IGEBM's procedure, or through classes in turn."""
    trained = load_trained_energy(options.source, generator.device)
    ensemble = _ensemble(options, trained)
    sampler = trained.sampler.model_copy(update={"num_steps": options.steps, "settle": None})
    source = noise_source(trained.data.shape, generator)
    if options.through:
        through = [trained.label(name) for name in options.through.split(",")]
        with progress_bar("calls", options.calls * len(through)) as progress:
            advance = partial(progress.advance, progress.task_ids[0])
            starts = source(options.count).images
            stages = list(walk(ensemble, starts, through, sampler, options.calls, generator, advance))
        return torch.stack(stages, 1).flatten(0, 1), len(through)
    if classes := _classes(options, trained):
        source = labelled_source(source, torch.tensor(classes, device=generator.device), generator)
    config = Round(bank_size=options.count, batch_size=-(-options.count // 2), calls=options.calls)
    with progress_bar("calls", options.calls) as progress:
        made = generate(ensemble, source, sampler, config, generator, partial(progress.advance, progress.task_ids[0]))
    return made.images if made.labels is None else made.images[made.labels.argsort()], 8


def _classes(options: argparse.Namespace, trained: TrainedEnergy) -> list[int]:
    if options.classes is None:
        return list(range(trained.classes))
    return [trained.label(name) for name in options.classes.split(",")]


def _ensemble(options: argparse.Namespace, trained: TrainedEnergy) -> Ensemble:
    if options.history is None:
        return Ensemble([trained])
    return Ensemble(load_history(trained, options.source.parent, options.history), options.together)


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
