"""python -m models restore: lost pixels made anew by an energy's chains, of a data set or of one image."""

import argparse
import json
from pathlib import Path
from typing import Any, get_args

import torch

from models.bundle import Bundle, load_bundle
from models.config import validate
from models.console import console, positive_int, progress_bar
from models.data import DATASETS
from models.device import resolve_device
from models.errors import ConfigError
from models.files import commit, replace_file
from models.image_files import read_image, write_png
from models.manifest import ImageShape
from models.noise import SeededNoise
from models.pixels import from_uint8, to_uint8
from models.purifier import Preset
from models.tasks.corruptions import EXPECTED, parse_corruption
from models.tasks.restoration import Method, Start, denoise, inpaint, mask_of, spread_levels
from models.tasks.restoration_result import RestorationResult
from models.tasks.restoration_run import SPLITS, Restoring, Spoiled, restore_splits, true_images
from models.training.diagnostics import save_grid

SHOWN = 12
"""Images in the grid."""


def restore(options: argparse.Namespace) -> None:
    """Restore lost pixels: spoiled training and test images, beside baselines; or an image file with its mask."""
    device = resolve_device(options.device)
    bundle = load_bundle(options.bundle, device)
    given = {"num_steps": options.steps, "replicates": options.replicates}
    chosen = {name: value for name, value in given.items() if value is not None}
    if options.steps is not None:
        chosen["settle"] = None  # who asks for a number of steps gets it
    preset = bundle.manifest.preset(options.preset).model_copy(update=chosen)
    if options.image is not None:
        _restore_file(options, bundle, preset, device)
    elif options.corruption is None or options.mask is not None:
        raise ConfigError("expected --corruption with images of a data set, or --image with or without --mask")
    else:
        _restore_data(options, bundle, preset, device)


def restore_arguments(parser: argparse.ArgumentParser) -> None:
    """What `restore` reads, but for the device."""
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", choices=DATASETS, help="default: what the energy was trained on")
    parser.add_argument("--folder", type=Path, help="a local folder that holds the dataset's files")
    parser.add_argument("--corruption", help=EXPECTED)
    parser.add_argument("--images", type=positive_int, default=64, help="of each split (default 64)")
    parser.add_argument("--image", type=Path, help="instead, one image file of the bundle's size")
    parser.add_argument("--mask", type=Path, help="of --image: white where pixels are to be made anew")
    parser.add_argument("--preset", help="default: the bundle's")
    parser.add_argument("--steps", type=positive_int, help="Langevin steps, exactly, instead of the preset's")
    parser.add_argument(
        "--replicates", type=positive_int, help="chains whose mean is the answer (default: the preset's)"
    )
    parser.add_argument(
        "--start", choices=get_args(Start), default="smooth", help="of marked pixels: a smooth guess, or uniform noise"
    )
    parser.add_argument(
        "--method",
        choices=get_args(Method),
        default="extremes",
        help="where nobody marked the lost pixels: black and white ones are made anew, or all pixels may move",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder; the same command continues an interrupted run")


def _restore_data(options: argparse.Namespace, bundle: Bundle, preset: Preset, device: torch.device) -> None:
    if options.images < 2:
        raise ConfigError(f"--images {options.images}: expected at least 2, for an interval")
    table = {"preset": preset.model_dump(), "corruption": parse_corruption(options.corruption)}
    table |= {"start": options.start, "method": options.method, "seed": options.seed}
    config = validate(Restoring, table, "--start, --method, --seed")
    name, shape = options.data or bundle.manifest.dataset, bundle.manifest.image
    truth = {split: true_images(shape, name, split, options.images, options.folder).to(device) for split in SPLITS}
    identity = {"weights": bundle.manifest.weights_digest, "data": name, "images": options.images}
    result, images = restore_splits(bundle.defence.energy, truth, config, options.out, identity)
    _write(options.out, {**identity, "bundle": bundle.digest, **config.model_dump(mode="json")}, result)
    _save_grid(options.out, images)


def _restore_file(options: argparse.Namespace, bundle: Bundle, preset: Preset, device: torch.device) -> None:
    shape = bundle.manifest.image
    image = from_uint8(read_image(options.image, shape))[None].to(device)
    grey = ImageShape(height=shape.height, width=shape.width, channels=1)
    mask = None if options.mask is None else mask_of(read_image(options.mask, grey), str(options.mask)).to(device)
    noise = SeededNoise(torch.Generator(device).manual_seed(options.seed))
    with progress_bar("steps of a batch", preset.num_steps) as progress:
        task = progress.task_ids[0]

        def advance(*_: object) -> None:
            progress.advance(task)

        if mask is None:
            restored = denoise(bundle.defence.energy, image, preset, options.method, noise, advance)
        else:
            restored = inpaint(bundle.defence.energy, image, mask[None], preset, options.start, noise, advance)
    options.out.mkdir(parents=True, exist_ok=True)
    write_png(options.out / "restored.png", to_uint8(restored.images[0].cpu()))
    write_png(options.out / "uncertainty.png", spread_levels(restored.spread[0]).cpu())
    console.print(
        f"{options.out}: restored.png, the mean of {preset.replicates} chains of {preset.num_steps} steps, and "
        "uncertainty.png, a level for each 1/255 of their standard deviation"
    )


def _write(folder: Path, settings: dict[str, Any], result: RestorationResult) -> None:
    for line in result.lines():
        console.print(line)
    table = {"kind": "restoration", **settings, **result.model_dump(mode="json")}
    text = json.dumps({**table, "commit": commit(), "torch": torch.__version__}, indent=2, allow_nan=False)
    replace_file(folder / "result.json", (text + "\n").encode())


def _save_grid(folder: Path, images: Spoiled) -> None:
    rows, most = images.rows("test", SHOWN)
    save_grid(rows.flatten(0, 1), folder / "grid.png", rows.shape[1])
    console.print(
        f"{folder}: result.json, and grid.png of test images: original, spoiled, restored, uncertainty "
        f"(white is a standard deviation of {most * 127.5:.0f}/255)"
    )
