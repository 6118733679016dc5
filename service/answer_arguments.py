"""The flags of command lines that ask what a request to the service would ask."""

import argparse
from typing import Any

from models.console import positive_float, positive_int

PURIFYING = ("preset", "steps", "resize")
CLASSIFYING = (*PURIFYING, "replicates", "top_k", "labels_only", "certify", "certify_draws", "sigma")
"""The options that the flags give; None where they were not given."""


def add_purify_arguments(group: "argparse._ArgumentGroup") -> None:
    """Flags of `PurifyOptions`."""
    group.add_argument("--preset", help="default: the bundle's")
    group.add_argument("--steps", type=int, help="Langevin steps instead of the preset's")
    group.add_argument("--resize", action="store_true", default=None, help="stretch images of another size")


def add_classify_arguments(group: "argparse._ArgumentGroup") -> None:
    """Flags of `ClassifyOptions`, but for the seed."""
    add_purify_arguments(group)
    group.add_argument("--replicates", type=positive_int, help="chains an image, whose logits are averaged")
    group.add_argument("--top-k", type=positive_int, help="predictions an image (default 5)")
    group.add_argument("--labels-only", action="store_true", default=None, help="no number that helps an attacker")
    group.add_argument("--certify", action="store_true", default=None, help="add an L2 radius by randomised smoothing")
    group.add_argument("--certify-draws", type=positive_int, help="noisy draws of a certificate (default 128)")
    group.add_argument("--sigma", type=positive_float, help="of a certificate's noise (default 0.08)")


def given_options(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """What was given of those options."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}
