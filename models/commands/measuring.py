"""Accuracy and calibration of a bundle, and results that go into its model card."""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from models.bundle import Bundle, load_bundle, read_manifest
from models.card_measurements import for_the_card
from models.console import console, positive_int, progress_bar
from models.data import DATASETS
from models.device import resolve_device
from models.errors import ConfigError, DataError
from models.evaluation.accuracy import accuracy, bare_logits, purified_logits
from models.evaluation.calibrate import calibrate
from models.evaluation.sample import LabelledImages, take_images
from models.export import write_manifest


def measured(options: argparse.Namespace) -> None:
    """Write results of `attacks_eval` into a bundle's manifest and model card."""
    manifest = read_manifest(options.bundle)
    results = dict(manifest.measured)
    for path in options.results:
        result = _read_json(path)
        if not manifest.answers(result):
            raise DataError(f"{path} was measured on another bundle than {manifest.name}, {manifest.digest[:16]}")
        results[result["kind"]] = for_the_card(result)
    given = dict(map(_named_file, options.beside or ()))
    others = {what: _of_others(path, results.get("baseline")) for what, path in given.items()}
    update = {"measured": results, "beside": others or manifest.beside}
    write_manifest(options.bundle, manifest.model_copy(update=update))
    console.print(f"{options.bundle}: model card shows {', '.join(results)}")


def measured_arguments(parser: argparse.ArgumentParser) -> None:
    """What `measured` reads."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("results", type=Path, nargs="+", help="result files of attacks_eval")
    parser.add_argument(
        "--beside",
        action="append",
        metavar="WHAT=FILE",
        help="a baseline of other weights on the same images, to show beside this bundle's; WHAT says which they are",
    )


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


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """What `evaluate` reads, but for the device."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", choices=DATASETS, help="default: what the energy was trained on")
    parser.add_argument("--folder", type=Path, help="a local folder that holds the dataset's files")
    parser.add_argument("--first", type=int, default=0, help="number of the first test image (default 0)")
    parser.add_argument("--images", type=positive_int, default=500)
    parser.add_argument("--preset", action="append", help="default: each of the bundle's")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="instead, calibrate `suspicion` on these images, into the manifest; take some that no report counts",
    )
    parser.add_argument("--seed", type=int, default=0)


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


def _named_file(given: str) -> tuple[str, Path]:
    what, _, path = given.partition("=")
    if not what or not path:
        raise ConfigError(f"--beside {given!r}: expected WHAT=FILE")
    return what, Path(path)


def _of_others(path: Path, own: dict[str, Any] | None) -> dict[str, Any]:
    """The baseline in `path`; raises DataError unless it is of the same images and attack as the bundle's own."""
    others = _read_json(path)
    same = ("kind", "data", "first", "images", "seed", "threat")
    if own is None or any(others.get(key) != own[key] for key in same):
        raise DataError(f"--beside {path} is not a baseline of the images and attack of this bundle's own baseline")
    return others


def _read_json(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text())
        if "kind" not in result:
            raise ValueError("it does not say its kind")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a result of attacks_eval: {error}") from error
    checked: dict[str, Any] = result
    return checked
