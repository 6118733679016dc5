"""python -m attacks_eval COMMAND; --help lists the commands (also installed as limpid-attack)"""

import argparse
import itertools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from attacks_eval.baseline import run_baseline
from attacks_eval.commands import add_commands
from attacks_eval.craft import craft
from attacks_eval.pgd import PGD
from attacks_eval.refusing import run_refusing
from attacks_eval.strength.command import strength, strength_arguments
from attacks_eval.strength.mixing import mixing, mixing_arguments
from attacks_eval.threat_model import ThreatModel
from attacks_eval.trade_off import run_trade_off
from models.bundle import Bundle, load_bundle
from models.config import validate
from models.console import console, positive_float, positive_int, run_command
from models.data import DATASETS
from models.device import resolve_device
from models.evaluation.accuracy import Accuracy
from models.evaluation.sample import LabelledImages, take_images


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, 2 for an error that the user can correct."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    options.command = "python -m attacks_eval " + shlex.join(given)
    return run_command(options)


def baseline(options: argparse.Namespace) -> None:
    """Clean accuracy and PGD transfer, bare and purified at each preset."""
    bundle, taken, threat, config, out = _common(options, "baseline.json")
    names = options.preset or list(bundle.manifest.presets)
    result = run_baseline(bundle, taken, names, threat, config, options.seed, out, options.command)
    table = Table("", f"PGD-{config.steps}, {threat.budget:g}/255", "clean", "seconds")
    table.add_row("bare classifier", _show(result["bare"]["attacked"]), _show(result["bare"]["clean"]), "")
    for name, row in result["presets"].items():
        table.add_row(f"purified, {name}", _show(row["transfer"]), _show(row["clean"]), f"{row['seconds']:.0f}")
    console.print(table)
    console.print(f"The attack does not know the purifier: an upper bound, not a guarantee. Written to {out}")


def trade_off(options: argparse.Namespace) -> None:
    """Accuracy against steps, step size, temperature and replicates, on other images (--first) than you report."""
    bundle, taken, threat, config, out = _common(options, "trade_off.json")
    preset = bundle.defence.preset
    samplers = [
        preset.model_copy(update={"step_size": step_size, "temperature": temperature})
        for step_size, temperature in itertools.product(
            options.step_size or [preset.step_size], options.temperature or [preset.temperature]
        )
    ]
    result = run_trade_off(
        bundle,
        taken,
        samplers,
        sorted(options.steps),
        sorted(options.settle),
        sorted(options.replicates),
        threat,
        config,
        options.white_box,
        options.workers,
        options.seed,
        out,
        options.command,
    )
    chain = ("num_steps", "settle", "step_size", "temperature")
    held = {tuple(row[key] for key in chain): _show(row["held"]) for row in result.get("white_box", [])}
    table = Table("steps", "settle", "step size", "T", "replicates", "cost", "clean", "transfer", "white box")
    for row in result["rows"]:
        shown = (str(row[key]) for key in (*chain, "replicates", "image_steps"))
        knowing = held.get(tuple(row[key] for key in chain), "")
        table.add_row(*shown, _show(row["clean"]), _show(row["transfer"]), knowing)
    console.print(table)


def refusing(options: argparse.Namespace) -> None:
    """What refusing by suspicion is worth: clean, and against attackers who do not know of it and who do."""
    bundle, taken, threat, config, out = _common(options, "refusing.json")
    result = run_refusing(bundle, taken, threat, config, options.seed, out, options.command)
    table = Table("refused above", "sender", "answered", "right of the answered", "wrong answers, of all")
    for sender, rows in result["senders"].items():
        for row in rows:
            above, right = row["threshold"], row["right_of_answered"]
            shown = (_show(row["answered"]), _show(right) if right else "-", _show(row["wrong"]))
            table.add_row("never" if above is None else f"{above:g}", sender, *shown)
    console.print(table)
    console.print(f"No attacker here follows the gradient of suspicion. Written to {out}")


def craft_image(options: argparse.Namespace) -> None:
    """Attack one image file on the bare classifier, to try a service with."""
    bundle = load_bundle(options.bundle, resolve_device(options.device))
    threat, config = _attack(options)
    made = craft(bundle, options.image, options.label, threat, config, options.seed, options.output)
    console.print(f"{options.output}: the bare classifier said {made.before}, now says {made.after}")


def _attack(options: argparse.Namespace) -> tuple[ThreatModel, PGD]:
    threat = validate(ThreatModel, {"budget": options.budget}, "--budget")
    config = validate(PGD, {"steps": options.attack_steps, "attack_step": options.attack_step}, "attack")
    return threat, config


def _common(options: argparse.Namespace, file: str) -> tuple[Bundle, LabelledImages, ThreatModel, PGD, Path]:
    bundle = load_bundle(options.bundle, resolve_device(options.device))
    device = next(bundle.defence.parameters()).device
    taken = take_images(bundle.manifest, options.data, options.folder, options.first, options.images, device)
    threat, config = _attack(options)
    return bundle, taken, threat, config, options.out or Path("runs") / bundle.manifest.name / file


def _show(value: dict[str, Any]) -> str:
    low, high = Accuracy(value["correct"], value["total"]).interval
    return f"{100 * value['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m attacks_eval", description="Find out what a defence is worth.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_commands(commands)

    p = commands.add_parser("baseline", help=baseline.__doc__, description=baseline.__doc__)
    p.set_defaults(run=baseline)
    _shared(p, first=0, images=1000)
    p.add_argument("--preset", action="append", help="default: each of the bundle's")

    p = commands.add_parser("trade-off", help=trade_off.__doc__, description=trade_off.__doc__)
    p.set_defaults(run=trade_off)
    _shared(p, first=0, images=200)
    p.add_argument("--steps", type=positive_int, nargs="+", default=[50, 100, 200, 400])
    p.add_argument("--settle", type=positive_float, nargs="*", default=[], help="rules of stopping to try besides none")
    p.add_argument("--replicates", type=positive_int, nargs="+", default=[1, 4])
    p.add_argument("--step-size", type=positive_float, nargs="+", help="default: the bundle's")
    p.add_argument("--temperature", type=positive_float, nargs="+", help="default: the bundle's")
    p.add_argument(
        "--white-box", type=positive_int, default=0, help="also attack so many images with knowledge of the defence"
    )
    p.add_argument("--workers", type=positive_int, default=1, help="processes that those attacks search in")

    p = commands.add_parser("refusing", help=refusing.__doc__, description=refusing.__doc__)
    p.set_defaults(run=refusing)
    _shared(p, first=0, images=200)

    p = commands.add_parser("strength", help=strength.__doc__, description=strength.__doc__)
    p.set_defaults(run=strength)
    strength_arguments(p)

    p = commands.add_parser("mixing", help=mixing.__doc__, description=mixing.__doc__)
    p.set_defaults(run=mixing)
    mixing_arguments(p)

    p = commands.add_parser("craft", help=craft_image.__doc__, description=craft_image.__doc__)
    p.set_defaults(run=craft_image)
    p.add_argument("image", type=Path)
    p.add_argument("-o", "--output", type=Path, required=True)
    p.add_argument("--label", help="the true class (default: what the bare classifier answers)")
    _attacker(p)
    return parser


def _shared(parser: argparse.ArgumentParser, first: int, images: int) -> None:
    _attacker(parser)
    parser.add_argument("--data", choices=DATASETS, help="default: what the energy was trained on")
    parser.add_argument("--folder", type=Path, help="a local folder that holds the dataset's files")
    parser.add_argument("--first", type=int, default=first, help=f"number of the first test image (default {first})")
    parser.add_argument("--images", type=positive_int, default=images, help=f"number of test images (default {images})")
    parser.add_argument("--out", type=Path, help="the result file (default: runs/BUNDLE/)")


def _attacker(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=8.0, help="L-infinity radius in 1/255 units (default 8)")
    parser.add_argument("--attack-steps", type=positive_int, default=20)
    parser.add_argument("--attack-step", type=positive_float, default=2.0, help="in 1/255 units (default 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto (a GPU when there is one), cpu, cuda, cuda:1, ...")


if __name__ == "__main__":
    sys.exit(main())
