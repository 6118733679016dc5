"""Chains and purified images, to look at."""

import argparse
from pathlib import Path

import torch

from models.bundle import load_bundle
from models.console import console, positive_int, progress_bar
from models.device import resolve_device
from models.evaluation.sample import take_images
from models.image_files import read_image, write_png
from models.noise import SeededNoise
from models.pixels import distance_l2, distance_linf, from_uint8, to_uint8
from models.training.diagnostics import save_grid

ZOO = Path(__file__).parents[1] / "zoo"


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


def sample_arguments(parser: argparse.ArgumentParser) -> None:
    """What `sample` reads, but for the device."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--start", choices=("noise", "data"), default="data")
    parser.add_argument("--steps", type=positive_int, default=500)
    parser.add_argument("--count", type=positive_int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("samples.png"))


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


def purify_arguments(parser: argparse.ArgumentParser) -> None:
    """What `purify` reads, but for the device."""
    parser.add_argument("image", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=ZOO / "cifar10-midrun")
    parser.add_argument("--preset")
