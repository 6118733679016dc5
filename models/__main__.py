"""python -m models COMMAND; --help lists the commands"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from models.commands.datasets import data, data_arguments
from models.commands.density import chains, chains_arguments, likelihood, likelihood_arguments
from models.commands.detect import detect, detect_arguments
from models.commands.diagnose import diagnose, diagnose_arguments
from models.commands.fidelity import fidelity, fidelity_arguments
from models.commands.life_cycle import life_cycle, life_cycle_arguments
from models.commands.measuring import evaluate, evaluate_arguments, measured, measured_arguments
from models.commands.pictures import purify, purify_arguments, sample, sample_arguments
from models.commands.reproducing import reproduce, reproduce_arguments
from models.commands.restoring import restore, restore_arguments
from models.commands.training import (
    convert_generator,
    convert_generator_arguments,
    export,
    export_arguments,
    mix,
    mix_arguments,
    train,
    train_arguments,
)
from models.console import run_command

COMPUTING = {
    train: train_arguments,
    evaluate: evaluate_arguments,
    fidelity: fidelity_arguments,
    detect: detect_arguments,
    sample: sample_arguments,
    purify: purify_arguments,
    restore: restore_arguments,
    chains: chains_arguments,
    likelihood: likelihood_arguments,
    life_cycle: life_cycle_arguments,
    reproduce: reproduce_arguments,
}
"""Commands that run networks, on a device of the user's choice, with what declares their options."""
OTHERS = {
    diagnose: diagnose_arguments,
    export: export_arguments,
    mix: mix_arguments,
    measured: measured_arguments,
    data: data_arguments,
    convert_generator: convert_generator_arguments,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, 2 for an error that the user can correct."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    options.command = "python -m models " + shlex.join(given)
    return run_command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description="Train, export and look at defences.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for run, add_arguments in (COMPUTING | OTHERS).items():
        about = run.__doc__ or ""
        # argparse fills in `help`, and takes `description` as it stands.
        line = about.replace("%", "%%")
        command = commands.add_parser(run.__name__.replace("_", "-"), help=line, description=about)
        command.set_defaults(run=run)
        add_arguments(command)
        if run in COMPUTING:
            command.add_argument(
                "--device", default="auto", help="auto (a GPU when there is one), cpu, cuda, cuda:1, ..."
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
