"""python -m models diagnose: the page of a training run, made anew from its folder."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from models.commands.fidelity import FidelityResult
from models.console import console, positive_int
from models.errors import ConfigError, DataError
from models.training.page import write_page
from models.training.page_fidelity import append_fidelity
from models.training.run import load_trained, read_metrics


def diagnose(options: argparse.Namespace) -> None:
    """Write RUN/diagnostics.html: is learning stable, how old are its chains, what do they look like."""
    if find_spec("matplotlib") is None:
        raise ConfigError("figures need matplotlib: install the extra `train`")
    if options.at is not None and options.fidelity is None:
        raise ConfigError(f"--at {options.at} says when a result's samples were made, and needs --fidelity")
    checkpoint, _ = load_trained(options.folder / "checkpoint.pt", "energy")
    if options.fidelity is not None:
        result = _read_result(options.fidelity)
        append_fidelity(options.folder, options.at or checkpoint["update"], result.scores)
    write_page(options.folder, checkpoint, read_metrics(options.folder))
    console.print(f"written to {options.folder / 'diagnostics.html'}")


def diagnose_arguments(parser: argparse.ArgumentParser) -> None:
    """What `diagnose` reads."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, with its checkpoint.pt")
    parser.add_argument("--fidelity", type=Path, help="add this result of `python -m models fidelity` to the run")
    parser.add_argument("--at", type=positive_int, help="the update its samples are of (default: the checkpoint's)")


def _read_result(path: Path) -> FidelityResult:
    """Raises DataError that names the file, and the key that is wrong."""
    try:
        return FidelityResult.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise DataError(f"{path} is no result of `python -m models fidelity`: {error}") from error
