"""From a recipe to a run, from a run to a bundle, and generators that others trained."""

import argparse
from pathlib import Path

from models.console import console, positive_float
from models.device import resolve_device
from models.export import export_bundle, read_presets
from models.networks import conversion
from models.training import kept_parts
from models.training.recipe import load_recipe


def train(options: argparse.Namespace) -> None:
    """Train what a recipe describes, into a run folder."""
    # Imported here: training needs the `train` extra, the other commands do not.
    from models.training.program import train_recipe

    recipe = load_recipe(options.recipe, options.set)
    name = Path(options.recipe).stem if options.recipe.endswith(".toml") else options.recipe
    train_recipe(
        recipe, options.out or Path("runs") / name, options.resume, options.amend, resolve_device(options.device)
    )


def train_arguments(parser: argparse.ArgumentParser) -> None:
    """What `train` reads, but for the device."""
    parser.add_argument("recipe", help="a name in models/recipes, or a .toml file")
    parser.add_argument("--out", type=Path, help="the run's folder (default: runs/RECIPE)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", help="override one value of the recipe"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in that folder, or start it")
    parser.add_argument(
        "--amend", action="store_true", help="let a resumed run change its recipe, and record the change"
    )


def export(options: argparse.Namespace) -> None:
    """Make a bundle from an energy and a classifier."""
    manifest = export_bundle(
        options.out,
        options.energy,
        options.classifier,
        options.classifier_config,
        read_presets(options.presets) if options.presets else None,
        options.description,
    )
    console.print(f"{options.out}: bundle {manifest.digest[:16]}, presets {', '.join(manifest.presets)}")


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """What `export` reads."""
    parser.add_argument("energy", type=Path, help="an energy run's checkpoint.pt, or a bundle, whose energy is taken")
    parser.add_argument(
        "--classifier",
        type=Path,
        required=True,
        help="a run's checkpoint.pt, a folder that mix wrote, or an .onnx file",
    )
    parser.add_argument(
        "--classifier-config", type=Path, help="for .onnx: a TOML file with size, normalisation, class_names"
    )
    parser.add_argument("--presets", type=Path, help="a TOML file of presets (default: made from the training sampler)")
    parser.add_argument("--description", help="one sentence on what the bundle is for (default: what it is made of)")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder")


def mix(options: argparse.Namespace) -> None:
    """Make one classifier of a robust and an accurate one, for export to put into a bundle."""
    kept_parts.mix(options.robust, options.accurate, options.robust_weight, options.sharpness, options.out)
    console.print(f"{options.out}: mixed, {options.robust_weight:g} of it robust, sharpened by {options.sharpness:g}")


def mix_arguments(parser: argparse.ArgumentParser) -> None:
    """What `mix` reads."""
    for name in ("robust", "accurate"):
        parser.add_argument(name, type=Path, help="a classifier run's checkpoint.pt, a kept part's folder, or a bundle")
    parser.add_argument("--robust-weight", type=float, required=True, help="between 1/2 and 1")
    parser.add_argument("--sharpness", type=positive_float, required=True, help="what multiplies the robust logits")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")


def convert_generator(options: argparse.Namespace) -> None:
    """Convert an SNGAN generator of PyTorch Mimicry into one that training starts chains from."""
    record = conversion.convert_generator(options.checkpoint, options.out)
    console.print(f"{options.out}: {record.architecture} {record.arguments}, weights {record.sha256[:16]}")


def convert_generator_arguments(parser: argparse.ArgumentParser) -> None:
    """What `convert-generator` reads."""
    parser.add_argument("checkpoint", type=Path, help="a .pth file of torch_mimicry's SNGANGenerator32, 64 or 128")
    parser.add_argument("--out", type=Path, required=True, help="the generator's folder")
