"""Settings of one server process: command line, then environment `LIMPID_*`, then defaults."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ByteSize, Field, ValidationError

import models
from models.bundle import Runtime
from models.config import Frozen
from service.errors import SettingsError

PREFIX = "LIMPID_"
FOREIGN_VARIABLES = frozenset({"LIMPID_CACHE"})
DEFAULT_BUNDLE = Path(models.__file__).parent / "zoo" / "cifar10-midrun"


class Settings(Frozen):
    """Everything an operator decides. Each field is a flag `--field-name` and a variable `LIMPID_FIELD_NAME`."""

    bundle: Path = Field(DEFAULT_BUNDLE, description="folder of the bundle to serve")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    device: str = Field("auto", description="cpu, cuda, cuda:N, or auto: a GPU when there is one")
    runtime: Runtime = Field("torch", description="what runs the classifier: torch or onnx")
    max_body_bytes: ByteSize = Field(ByteSize(10 * 2**20), gt=0, description="largest request body, such as 10MiB")
    # Pillow's own guard against decompression bombs starts to warn at 89 megapixels; stay below it.
    max_pixels: int = Field(4_000_000, gt=0, le=80_000_000, description="largest width x height of an upload")
    max_steps: int = Field(2000, ge=1, description="most Langevin steps that a request may ask for")
    max_replicates: int = Field(128, ge=1, description="most chains that a request may ask for")
    queue_limit: int = Field(64, ge=1, description="most requests admitted at once; others are told to retry")
    body_timeout: float = Field(20.0, gt=0, description="seconds within which a request body must arrive")
    stall_timeout: float = Field(60.0, gt=0, description="seconds without a sign of life from the engine: not live")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe log line")


def load_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Resolve the settings; raises SettingsError naming each wrong flag or variable. `--help` exits."""
    flags = vars(_parser().parse_args(list(arguments)))
    variables = {key: value for key, value in environ.items() if key.startswith(PREFIX)}
    variables = {key: value for key, value in variables.items() if not _foreign(key, value)}
    known = {PREFIX + name.upper(): name for name in Settings.model_fields}
    if unknown := sorted(variables.keys() - known.keys()):
        raise SettingsError(f"unknown environment variable {', '.join(unknown)}; known: {', '.join(known)}")
    values: dict[str, Any] = {known[key]: value for key, value in variables.items()} | flags
    origin = {known[key]: key for key in variables} | {name: _flag(name) for name in flags}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        lines = [f"{origin[str(item['loc'][0])]} {item['input']!r}: {item['msg']}" for item in error.errors()]
        raise SettingsError("; ".join(lines)) from error


def _foreign(key: str, value: str) -> bool:
    """Variables that other packages read, and those that Kubernetes makes for a Service named `limpid`."""
    injected = key.startswith((PREFIX + "SERVICE_", PREFIX + "PORT_")) or value.startswith(("tcp://", "udp://"))
    return key in FOREIGN_VARIABLES or injected


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve a Limpid bundle over HTTP.",
        epilog=f"Every flag is also an environment variable: --max-steps is {PREFIX}MAX_STEPS. Flags win.",
        allow_abbrev=False,
    )
    for name, field in Settings.model_fields.items():
        parser.add_argument(
            _flag(name), default=argparse.SUPPRESS, help=f"{field.description} (default: {field.default})"
        )
    return parser
