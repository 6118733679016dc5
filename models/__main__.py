"""python -m models COMMAND; --help lists the commands"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.bundle import Bundle, load_bundle, read_manifest
from models.console import console, positive_int, progress_bar, run_command
from models.data import DATASETS, load_dataset
from models.data_local import SPLIT_NAMES
from models.data_sources import SOURCES, cache_folder, fetch, locate
from models.device import resolve_device
from models.errors import DataError
from models.evaluation.accuracy import accuracy, bare_logits, purified_logits
from models.evaluation.calibrate import calibrate
from models.evaluation.density_commands import chains, chains_arguments, likelihood, likelihood_arguments
from models.evaluation.fidelity_command import add_fidelity_arguments, fidelity
from models.evaluation.sample import LabelledImages, take_images
from models.export import export_bundle, read_presets, write_manifest
from models.image_files import read_image, write_png
from models.model_card import for_the_card
from models.networks import conversion
from models.noise import SeededNoise
from models.pixels import distance_l2, distance_linf, from_uint8, to_uint8
from models.training.diagnostics import save_grid
from models.training.recipe import load_recipe

ZOO = Path(__file__).parent / "zoo"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, 2 for an error that the user can correct."""
    options = _parser().parse_args(arguments)
    return run_command(options)


def train(options: argparse.Namespace) -> None:
    """Train what a recipe describes, into a run folder."""
    # Imported here: training needs the `train` extra, the other commands do not.
    from models.training.program import train_recipe

    recipe = load_recipe(options.recipe, options.set)
    name = Path(options.recipe).stem
    train_recipe(
        recipe, options.out or Path("runs") / name, options.resume, options.amend, resolve_device(options.device)
    )


def export(options: argparse.Namespace) -> None:
    """Make a bundle from a checkpoint and a classifier."""
    manifest = export_bundle(
        options.out,
        options.checkpoint,
        options.classifier,
        options.classifier_config,
        read_presets(options.presets) if options.presets else None,
    )
    console.print(f"{options.out}: bundle {manifest.digest[:16]}, presets {', '.join(manifest.presets)}")


def measured(options: argparse.Namespace) -> None:
    """Write results of `attacks_eval` into a bundle's manifest and model card."""
    manifest = read_manifest(options.bundle)
    results = dict(manifest.measured)
    for path in options.results:
        result = _read_json(path)
        if not manifest.answers(result):
            raise DataError(f"{path} was measured on another bundle than {manifest.name}, {manifest.digest[:16]}")
        results[result["kind"]] = for_the_card(result)
    write_manifest(options.bundle, manifest.model_copy(update={"measured": results}))
    console.print(f"{options.bundle}: model card shows {', '.join(results)}")


def evaluate(options: argparse.Namespace) -> None:
    """Clean accuracy, bare and purified, with intervals; or what clean images look like, for `suspicion`."""
    device = resolve_device(options.device)
    bundle = load_bundle(options.bundle, device)
    taken = take_images(bundle.manifest, options.data, options.folder, options.first, options.images, device)
    if options.calibrate:
        _calibrate(bundle, taken, options.preset or list(bundle.manifest.presets), options.seed)
        return
    images, labels = taken.images, taken.labels
    console.print(f"bare            {accuracy(bare_logits(bundle.defence, images), labels)}")
    for preset_name in options.preset or bundle.manifest.presets:
        preset = bundle.manifest.preset(preset_name)
        with progress_bar(preset_name, len(images) * preset.replicates * preset.num_steps) as progress:
            advance = partial(progress.advance, progress.task_ids[0])
            logits = purified_logits(bundle.defence, images, preset, options.seed, advance)
        console.print(f"{preset_name:<15} {accuracy(logits.mean(0).cpu(), labels)}")


def _calibrate(bundle: Bundle, clean: LabelledImages, preset_names: Sequence[str], seed: int) -> None:
    """Write each preset's calibration into manifest and model card as soon as it is measured."""
    for name in preset_names:
        preset = bundle.manifest.preset(name)
        with progress_bar(name, len(clean.images) * preset.replicates * preset.num_steps) as progress:
            calibration = calibrate(bundle, name, clean, seed, partial(progress.advance, progress.task_ids[0]))
        manifest = read_manifest(bundle.folder)
        calibrations = manifest.calibration | {name: calibration}
        write_manifest(bundle.folder, manifest.model_copy(update={"calibration": calibrations}))
        console.print(f"{name:<15} calibrated on {len(clean.images)} images, suspicion up to {calibration.largest:.3f}")


def sample(options: argparse.Namespace) -> None:
    """Chains from noise or from test images, as a picture."""
    device = resolve_device(options.device)
    bundle = load_bundle(options.bundle, device)
    image, preset = bundle.manifest.image, bundle.defence.preset
    generator = torch.Generator(device).manual_seed(options.seed)
    noise = SeededNoise(generator)
    if options.start == "noise":
        starts = noise(torch.empty(options.count, image.channels, image.height, image.width, device=device))
    else:
        starts = take_images(bundle.manifest, None, None, 0, options.count, device).images
    sampler = preset.model_copy(update={"num_steps": options.steps, "settle": None})
    with progress_bar("langevin steps", options.steps) as progress:
        task = progress.task_ids[0]
        states = bundle.defence.purify(starts, sampler, noise, lambda *_: progress.advance(task))
    save_grid(states, options.out)
    console.print(f"{options.out}: {options.count} chains of {options.steps} steps from {options.start}")


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
    before, after = (int(bundle.defence.classify(x.to(device)).argmax()) for x in (image, rounded))
    console.print(
        f"{options.output}: moved L2 {float(distance_l2(image, rounded)):.3f}, "
        f"L-infinity {float(distance_linf(image, rounded)):.0f}/255; "
        f"{names[before]} before, {names[after]} after one chain of {preset.num_steps} steps"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text())
        if "kind" not in result:
            raise ValueError("it does not say its kind")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a result of attacks_eval: {error}") from error
    checked: dict[str, Any] = result
    return checked


def data(options: argparse.Namespace) -> None:
    """Fetch a dataset into the cache, unless it is there and whole; the larger ones are decoded on the way."""
    if options.name in SOURCES and options.folder is None:
        try:
            folder = locate(SOURCES[options.name])
        except DataError as error:
            console.print(f"{error}; fetching it again")
            folder = fetch(SOURCES[options.name])
        console.print(f"{options.name}: verified, in {folder} (cache {cache_folder()}; move it with LIMPID_CACHE)")
        return
    for split in options.split or ("train", "test"):
        found = load_dataset(options.name, split, options.folder, options.side, options.channels)
        described = f"{len(found):,} images {found.shape} in {len(found.class_names)} classes"
        console.print(f"{options.name} {split}: {described} (cache {cache_folder()})")


def convert_generator(options: argparse.Namespace) -> None:
    """Convert an SNGAN generator of PyTorch Mimicry into one that training starts chains from."""
    record = conversion.convert_generator(options.checkpoint, options.out)
    console.print(f"{options.out}: {record.architecture} {record.arguments}, weights {record.sha256[:16]}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description="Train, export and look at defences.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        name = run.__name__.replace("_", "-")
        added: argparse.ArgumentParser = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run)
        return added

    p = command(train)
    p.add_argument("recipe", help="a name in models/recipes, or a .toml file")
    p.add_argument("--out", type=Path, help="the run's folder (default: runs/RECIPE)")
    p.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="override one value of the recipe")
    p.add_argument("--resume", action="store_true", help="continue the run in that folder, or start it")
    p.add_argument("--amend", action="store_true", help="let a resumed run change its recipe, and record the change")
    _device(p)

    p = command(export)
    p.add_argument("checkpoint", type=Path, help="an energy run's checkpoint.pt")
    p.add_argument("--classifier", type=Path, required=True, help="a classifier run's checkpoint.pt, or an .onnx file")
    p.add_argument(
        "--classifier-config", type=Path, help="for .onnx: a TOML file with size, normalisation, class_names"
    )
    p.add_argument("--presets", type=Path, help="a TOML file of presets (default: made from the training sampler)")
    p.add_argument("--out", type=Path, required=True, help="the bundle's folder")

    p = command(measured)
    p.add_argument("bundle", type=Path)
    p.add_argument("results", type=Path, nargs="+", help="result files of attacks_eval")

    p = command(evaluate)
    p.add_argument("bundle", type=Path)
    p.add_argument("--data", choices=DATASETS, help="default: what the energy was trained on")
    p.add_argument("--folder", type=Path, help="a local folder that holds the dataset's files")
    p.add_argument("--first", type=int, default=0, help="number of the first test image (default 0)")
    p.add_argument("--images", type=positive_int, default=500)
    p.add_argument("--preset", action="append", help="default: each of the bundle's")
    p.add_argument(
        "--calibrate",
        action="store_true",
        help="instead, calibrate `suspicion` on these images, into the manifest; take some that no report counts",
    )
    p.add_argument("--seed", type=int, default=0)
    _device(p)

    p = command(fidelity)
    add_fidelity_arguments(p)
    _device(p)

    p = command(sample)
    p.add_argument("bundle", type=Path)
    p.add_argument("--start", choices=("noise", "data"), default="data")
    p.add_argument("--steps", type=positive_int, default=500)
    p.add_argument("--count", type=positive_int, default=32)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path("samples.png"))
    _device(p)

    p = command(purify)
    p.add_argument("image", type=Path)
    p.add_argument("-o", "--output", type=Path, required=True)
    p.add_argument("--bundle", type=Path, default=ZOO / "cifar10-midrun")
    p.add_argument("--preset")
    _device(p)

    for run, add_arguments in ((chains, chains_arguments), (likelihood, likelihood_arguments)):
        p = command(run)
        add_arguments(p)
        _device(p)

    p = command(data)
    p.add_argument("action", choices=("fetch",))
    p.add_argument("name", choices=DATASETS)
    p.add_argument("--folder", type=Path, help="a local copy: the dataset's own files, images, or parquet files")
    p.add_argument("--side", type=positive_int, help="for `folder`: what the images are resized to, in pixels")
    p.add_argument("--channels", type=int, choices=(1, 3), help="for `folder` (default 3)")
    p.add_argument("--split", action="append", choices=tuple(SPLIT_NAMES), help="default: train and test")

    p = command(convert_generator)
    p.add_argument("checkpoint", type=Path, help="a .pth file of torch_mimicry's SNGANGenerator32, 64 or 128")
    p.add_argument("--out", type=Path, required=True, help="the generator's folder")
    return parser


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto (a GPU when there is one), cpu, cuda, cuda:1, ...")


if __name__ == "__main__":
    sys.exit(main())
