"""The flags of command lines that ask what a request to the service would ask."""

import argparse
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from models.config import validate
from models.console import positive_float, positive_int
from models.errors import ConfigError

OptionsT = TypeVar("OptionsT")

PURIFYING = ("preset", "steps", "resize")
CLASSIFYING = (*PURIFYING, "replicates", "top_k", "labels_only", "certify", "certify_draws", "sigma")
"""The options that the flags give; None where they were not given."""

MOST_SEED = 2**63

# A word of prose stands for an option before a colon, with a value, or with an underscore in it.
_NAME = "|".join((*CLASSIFYING, "seed"))
_NAMED = re.compile(
    rf"(?<![\w'\"/-])(?:(?:form|body|query)\.)?(?:({_NAME})(?:=true\b|(?=:))|((?=[a-z]+_)(?:{_NAME}))\b)"
)


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


def seed(text: str) -> int:
    """An argparse type: what the service takes as a seed."""
    if not text.isdecimal() or int(text) >= MOST_SEED:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {MOST_SEED - 1}, got {text!r}")
    return int(text)


def parse_options(kind: type[OptionsT], given: Mapping[str, Any]) -> OptionsT:
    """The service's own options; raises ConfigError, which names the flags, for what it would not take."""
    try:
        return validate(kind, given, "options")
    except ConfigError as error:
        raise ConfigError(with_flags(str(error))) from error


def with_flags(refusal: str) -> str:
    """A refusal of the service in the words of its command lines: `--certify-draws` for `certify_draws`."""
    return _NAMED.sub(lambda found: "--" + (found[1] or found[2]).replace("_", "-"), refusal)
