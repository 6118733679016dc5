"""python -m models fidelity: what a set of images scores against a dataset, and what real images score."""

import argparse
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from models.config import Frozen
from models.console import console, positive_int, progress_bar
from models.data import DATASETS, load_dataset
from models.device import resolve_device
from models.errors import ConfigError, DataError
from models.evaluation.feature_cache import cached_features, image_digest
from models.evaluation.features import FeatureNetwork, load_efflite0, load_inception
from models.evaluation.fidelity import MINIMUM_COUNT, SCORE_STEPS, Score, score
from models.evaluation.inception_score import classifier_score
from models.evaluation.sample_files import read_samples
from models.files import commit, replace_file
from models.manifest import ImageShape


class FidelityResult(Frozen):
    """The scores, and all that they depend on; written as JSON.

    Args:
        samples, digest: where the samples came from, and the SHA-256 of those that were used.
        data: the dataset whose training images are reference and floor.
        seed: chose the samples, the reference and the images of the floor.
        features: the network's weights and preprocessing.
    """

    kind: Literal["fidelity"] = "fidelity"
    samples: str
    digest: str
    data: str
    count: int
    seed: int
    features: str
    scores: tuple[Score, ...]
    commit: str
    torch: str


def fidelity_arguments(parser: argparse.ArgumentParser) -> None:
    """What `fidelity` reads from the command line, but for the device."""
    parser.add_argument(
        "--samples", required=True, help=".npz of uint8 [N, C, H, W], a folder of PNGs, or - for an .npz on stdin"
    )
    parser.add_argument("--data", choices=DATASETS, required=True, help="compared with its training images")
    parser.add_argument("--folder", type=Path, help="a local folder that holds the dataset's files")
    parser.add_argument("--count", type=positive_int, default=10_000, help="images of each kind (default 10000)")
    parser.add_argument("--features", choices=("efflite0", "inception"), default="efflite0")
    parser.add_argument("--weights", type=Path, help="for inception: the file pt_inception-2015-12-05-6726825d.pth")
    parser.add_argument("--sha256", help="for inception: the digest that the file must have")
    parser.add_argument("--seed", type=int, default=0, help="chooses the images (default 0)")
    parser.add_argument("--out", type=Path, required=True, help="the result, as JSON")


def fidelity(options: argparse.Namespace) -> None:
    """Fréchet distance, KID, precision, recall and Inception Score of samples, each beside real images' score."""
    if options.count < MINIMUM_COUNT:
        raise ConfigError(f"--count {options.count}: expected at least {MINIMUM_COUNT}")
    network = _network(options)
    train = load_dataset(options.data, "train", options.folder).images
    channels, height, width = train.shape[1:]
    shape = ImageShape.model_validate({"channels": channels, "height": height, "width": width})
    read = read_samples(options.samples, shape)
    samples = _draw(read, options.count, options.seed, f"{options.samples} holds {len(read)} images")
    has = f"{options.data} has {len(train)} training images, which reference and floor share"
    real = _draw(train, 2 * options.count, options.seed, has)
    with progress_bar(f"{network.name} features", 3 * options.count) as progress:
        advance = partial(progress.advance, progress.task_ids[0])
        reference, held_out = cached_features(network, real, advance).split(options.count)
        features = network.features(samples, advance)
    with progress_bar("scores", SCORE_STEPS) as progress:
        done = partial(progress.advance, progress.task_ids[0])
        scores = score(network.name, network.frechet_name, features, reference, held_out, done)
    by_classifier = classifier_score(network, features, held_out)
    scores += () if by_classifier is None else (by_classifier,)
    for each in scores:
        console.print(str(each))
    result = FidelityResult(
        samples=options.samples,
        digest=image_digest(samples),
        data=options.data,
        count=options.count,
        seed=options.seed,
        features=network.identity,
        scores=scores,
        commit=commit(),
        torch=torch.__version__,
    )
    _write(options.out, result)


def _draw(images: Tensor, count: int, seed: int, has: str) -> Tensor:
    """`count` of the images in random order, for files are often sorted by class."""
    if count > len(images):
        raise DataError(f"{has}; {count} are needed")
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]]


def _network(options: argparse.Namespace) -> FeatureNetwork:
    device = resolve_device(options.device)
    if options.features == "inception":
        if options.weights is None or options.sha256 is None:
            raise ConfigError("--features inception needs --weights PATH and --sha256 HEX")
        return load_inception(options.weights, options.sha256, device)
    if options.weights is not None or options.sha256 is not None:
        raise ConfigError("--weights and --sha256 belong to --features inception; efflite0 brings its own")
    return load_efflite0(device)


def _write(path: Path, result: FidelityResult) -> None:
    try:
        replace_file(path, (result.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise DataError(f"{path} can not be written: {error.strerror}") from error
    console.print(f"written to {path}")
