"""python -m models reproduce: the papers' experiments, each by one command."""

import argparse
from pathlib import Path

from models.console import console
from models.device import resolve_device
from models.reproduce import experiments
from models.reproduce.experiments import EXPERIMENTS
from models.reproduce.page import publish
from models.reproduce.result import Reproduction


def reproduce(options: argparse.Namespace) -> None:
    """Remake a result of the papers; the same command continues an interrupted one."""
    folder = options.out or Path("runs/reproduce") / options.name
    conclude(experiments.reproduce(options.name, folder, resolve_device(options.device)), folder, options.publish)


def conclude(result: Reproduction, folder: Path, published: bool) -> None:
    """Print a finished experiment's numbers beside the paper's, and publish it where that is asked for."""
    for number in result.numbers:
        paper, ours = ("-" if value is None else f"{value:g}" for value in (number.paper, number.ours))
        console.print(f"{number.what}: paper {paper}, ours {ours} {number.unit}".rstrip())
    console.print(f"{folder}: result.json, {', '.join(result.pictures)}")
    if published:
        publish(folder)
        console.print("models/RESULTS.md: written anew")


def reproduce_arguments(parser: argparse.ArgumentParser) -> None:
    """What `reproduce` reads, but for the device."""
    listing = "\n".join(f"  {name:<24} {about}" for name, about in EXPERIMENTS.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"experiments:\n{listing}"
    parser.add_argument("name", choices=tuple(EXPERIMENTS), metavar="EXPERIMENT")
    result_arguments(parser)


def result_arguments(parser: argparse.ArgumentParser) -> None:
    """Where an experiment goes."""
    parser.add_argument("--out", type=Path, help="the run's folder (default: runs/reproduce/EXPERIMENT)")
    parser.add_argument("--publish", action="store_true", help="copy the result into models/results and RESULTS.md")
