"""python -m attacks_eval mixing: how much of a robust classifier, and how sharp, to mix with an accurate one.

Whatever the accurate one is made to say, the mixture is right where the robust one's probabilities, sharpened, lead by
more than (1 - w) / w: so one attack on the robust one alone bounds every mixture from below.
"""

import argparse
import itertools
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor, nn

from attacks_eval.losses import margins
from attacks_eval.strength.measure import HELD_OUT
from models.console import console, positive_float, positive_int, progress_bar
from models.data import DataSection, held_out_set
from models.device import resolve_device
from models.networks.mixed_classifier import mixture, overrules
from models.pixels import Normalisation, from_uint8
from models.precision import autocast
from models.training.adversarial import Adversarial, attack
from models.training.frozen_parts import trained_classifier

BATCH = 100
ATTACK = Adversarial(epsilon=8.0, start=8.0, step=2.0, steps=20, stay_inside=True)


def mixing(options: argparse.Namespace) -> None:
    """Clean accuracy of mixtures, and what PGD-20 on the robust one alone leaves whatever the other says."""
    device = resolve_device(options.device)
    robust, accurate = (trained_classifier(path, device) for path in (options.robust, options.accurate))
    held_out = held_out_set(DataSection(name="cifar10", held_out=HELD_OUT))
    assert held_out is not None
    images, labels = from_uint8(held_out.images[: options.images]).to(device), held_out.labels[: options.images]
    clean, attacked, other = _logits(robust, accurate, images, labels.to(device))
    table = Table("robust weight", "sharpness", "clean", "held at least", title=f"{len(labels)} held-out images")
    table.add_row("1", "", *map(_share, (clean.argmax(1) == labels, attacked.argmax(1) == labels)))
    for weight, sharpness in itertools.product(options.robust_weight, options.sharpness):
        right = mixture(clean, other, weight, sharpness).argmax(1) == labels
        held = overrules(attacked, labels, weight, sharpness)
        table.add_row(f"{weight:g}", f"{sharpness:g}", _share(right), _share(held))
    console.print(table)


def _logits(
    robust: tuple[nn.Module, Normalisation], accurate: tuple[nn.Module, Normalisation], images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The robust one's on clean and on attacked images, and the accurate one's on clean ones: [N, K] each."""
    found: list[tuple[Tensor, ...]] = []
    generator = torch.Generator().manual_seed(0)
    with progress_bar("PGD-20 on the robust classifier", len(images)) as progress:
        for x, wanted in zip(images.split(BATCH), labels.split(BATCH), strict=True):

            def hurt(attacked: Tensor, wanted: Tensor = wanted) -> Tensor:
                return -margins(_classify(robust, attacked), wanted).sum()

            attacked = attack(hurt, x, ATTACK.uniform(x, generator), ATTACK)
            with torch.no_grad():
                asked = ((robust, x), (robust, attacked), (accurate, x))
                found.append(tuple(_classify(*each).cpu() for each in asked))
            progress.advance(progress.task_ids[0], len(x))
    clean, hurt_logits, other = (torch.cat(each) for each in zip(*found, strict=True))
    return clean, hurt_logits, other


def _classify(classifier: tuple[nn.Module, Normalisation], images: Tensor) -> Tensor:
    """In bfloat16: this is for choosing, and a report attacks what was chosen."""
    network, normalisation = classifier
    with autocast(images.device, "bfloat16"):
        logits: Tensor = network(normalisation(images))
    return logits.float()


def _share(right: Tensor) -> str:
    return f"{100 * float(right.float().mean()):.1f} %"


def mixing_arguments(parser: argparse.ArgumentParser) -> None:
    """What `mixing` reads."""
    for name in ("robust", "accurate"):
        parser.add_argument(name, type=Path, help="a classifier run's checkpoint.pt, a kept part's folder, or a bundle")
    parser.add_argument("--robust-weight", type=float, nargs="+", default=[0.6, 0.7, 0.75, 0.8, 0.85, 0.9])
    parser.add_argument("--sharpness", type=positive_float, nargs="+", default=[1.0, 2.0, 3.0, 5.0, 8.0])
    parser.add_argument("--images", type=positive_int, default=HELD_OUT)
    parser.add_argument("--device", default="auto", help="auto (a GPU when there is one), cpu, cuda, cuda:1, ...")
