"""Settings of one server process: command line, then environment `LIMPID_*`, then a TOML file, then defaults."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ByteSize, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

import models
from models.bundle import Runtime
from models.config import Frozen, read_toml
from service.errors import SettingsError

PREFIX = "LIMPID_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
FOREIGN_VARIABLES = frozenset({"LIMPID_CACHE"})
DEFAULT_BUNDLE = Path(models.__file__).parent / "zoo" / "cifar10-robust"
DEFAULT = "default"

Sourced = dict[str, tuple[Any, str]]
"""What was given for some fields, and where: a flag, a variable or a file."""


def _whole(value: Any) -> Any:
    """A number that flags and variables write as text, which `Literal` does not convert."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class Settings(Frozen):
    """Everything an operator decides: a key of the file, a variable `LIMPID_FIELD_NAME`, a flag `--field-name`."""

    bundle: Path = Field(DEFAULT_BUNDLE, description="folder of the bundle to serve")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    device: str = Field("auto", description="cpu, cuda, cuda:N, auto (a GPU when there is one), or several with commas")
    runtime: Runtime = Field("torch", description="what runs the classifier: torch or onnx")

    keys_file: Path | None = Field(None, description="TOML file with the callers' keys; `key NAME` makes an entry")
    api_keys: SecretStr | None = Field(None, description="more keys: id:secret[:scope+scope], comma-separated")
    insecure: bool = Field(False, description="listen on a public address without keys; nobody may choose a seed")
    hosts: str = Field(
        "", description="names, with commas, that a server without keys answers to beside IP addresses and localhost"
    )
    labels_only: bool = Field(False, description="answer with labels alone, no probabilities")
    docs: bool = Field(True, description="serve /docs and /openapi.json")
    ui: bool = Field(True, description="serve the console, a page for browsers, at /")
    demo: bool = Field(False, description="let the console attack pictures, and show chains as they run")
    public_demo: bool = Field(False, description="allow --demo on a public address without keys")

    max_body_bytes: ByteSize = Field(ByteSize(10 * 2**20), gt=0, description="largest request body, such as 10MiB")
    max_inflight_bytes: ByteSize = Field(
        ByteSize(256 * 2**20), gt=0, description="most bytes of all bodies that arrive or wait to be decoded"
    )
    # Pillow's own guard against decompression bombs starts to warn at 89 megapixels; stay below it.
    max_pixels: int = Field(4_000_000, gt=0, le=80_000_000, description="largest width x height of an upload")
    max_images: int = Field(32, ge=1, description="most images in one request")
    max_steps: int = Field(2000, ge=1, description="most Langevin steps that a request may ask for")
    max_replicates: int = Field(128, ge=1, description="most chains that a request may ask for")
    max_cost: int = Field(300_000, ge=1, description="most image-steps of one request, classifying included")
    max_requests: int = Field(256, ge=1, description="requests taken in at once; others are told to retry")
    queue_seconds: float = Field(30.0, gt=0, description="how long the queue may be, in seconds at the measured speed")
    overload_status: Annotated[Literal[503, 429], BeforeValidator(_whole)] = Field(
        503, description="status of an answer that turns a request away because the server is full: 503 or 429"
    )
    rate_limit: float | None = Field(None, gt=0, description="image-steps per second for each key; unset: no limit")
    rate_burst: float = Field(60.0, gt=0, description="seconds of the rate limit that a key may save up")

    slots: int | None = Field(None, ge=1, description="most chains in a batch; unset: chosen at the warm-up")
    quantum: float = Field(0.05, gt=0, description="seconds between the points where chains join and leave the batch")

    max_connections: int = Field(1024, ge=1, description="open connections; one more is closed at once")
    header_timeout: float = Field(10.0, gt=0, description="seconds within which a request's head must arrive")
    body_timeout: float = Field(20.0, gt=0, description="seconds within which a request body must arrive")
    request_timeout: float = Field(
        120.0, gt=0, description="most seconds that a request may take, and the default of the X-Request-Timeout header"
    )
    stall_timeout: float = Field(60.0, gt=0, description="seconds without a sign of life from the engine: not live")
    drain_delay: float = Field(0.0, ge=0, description="seconds of serving on, while not ready, before stopping")
    drain_timeout: float = Field(60.0, gt=0, description="seconds that running requests get to finish when stopping")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe log line")
    log_format: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, json otherwise")


def load_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Resolve the settings; raises SettingsError or ConfigError that name what is wrong and where. `--help` exits."""
    given = _gather(arguments, environ)
    try:
        return Settings.model_validate({name: value for name, (value, _) in given.items()})
    except ValidationError as error:
        raise SettingsError("; ".join(_complaint(item, given) for item in error.errors())) from error


def setting_sources(arguments: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Where each setting that `load_settings` resolves comes from: a flag, a variable, a file, or `default`."""
    given = _gather(arguments, environ)
    return {name: given[name][1] if name in given else DEFAULT for name in Settings.model_fields}


def is_secret(field: FieldInfo) -> bool:
    """Whether the field's value must never be shown."""
    return SecretStr in get_args(field.annotation)


def _gather(arguments: Sequence[str], environ: Mapping[str, str]) -> Sourced:
    flags = vars(_parser().parse_args(list(arguments)))
    variables = {key: value for key, value in environ.items() if key.startswith(PREFIX)}
    variables = {key: value for key, value in variables.items() if not _foreign(key, value)}
    path = variables.pop(CONFIG_VARIABLE, None)
    path = flags.pop("config", path)
    given = {} if path is None else _from_file(Path(path))
    return given | _from_variables(variables) | {name: (value, _flag(name)) for name, value in flags.items()}


def _from_file(path: Path) -> Sourced:
    table = read_toml(path)
    if unknown := sorted(table.keys() - Settings.model_fields.keys()):
        raise SettingsError(f"{path}: unknown key {', '.join(unknown)}; known: {', '.join(Settings.model_fields)}")
    return {name: (value, f"{path}: {name}") for name, value in table.items()}


def _from_variables(variables: Mapping[str, str]) -> Sourced:
    known = {PREFIX + name.upper(): name for name in Settings.model_fields}
    # As container platforms hand over secrets: the variable names a file, which no process list or dump shows.
    files = {PREFIX + name.upper() + "_FILE": name for name, field in Settings.model_fields.items() if is_secret(field)}
    if unknown := sorted(variables.keys() - known.keys() - files.keys()):
        names = ", ".join((*known, *files, CONFIG_VARIABLE))
        raise SettingsError(f"unknown environment variable {', '.join(unknown)}; known: {names}")
    given = {known[key]: (value, key) for key, value in variables.items() if key in known}
    for key in variables.keys() & files.keys():
        name = files[key]
        if name in given:
            raise SettingsError(f"{key} and {given[name][1]} are both set; expected one of them")
        given[name] = (_read_secret(key, variables[key]), key)
    return given


def _read_secret(key: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{key}: can not read {path}: {error}") from error


def _complaint(item: ErrorDetails, given: Sourced) -> str:
    name = str(item["loc"][0])
    shown = "" if is_secret(Settings.model_fields[name]) else f" {item['input']!r}"
    return f"{given[name][1]}{shown}: {item['msg']}"


def _foreign(key: str, value: str) -> bool:
    """Variables that other packages read, and those that Kubernetes makes for a Service named `limpid`."""
    injected = key.startswith((PREFIX + "SERVICE_", PREFIX + "PORT_")) or value.startswith(("tcp://", "udp://"))
    return key in FOREIGN_VARIABLES or injected


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve a Limpid bundle over HTTP. `config [flags]` shows the settings, `key NAME` makes a key.",
        epilog=f"Every flag is also an environment variable and a key of the file: --max-steps is {PREFIX}MAX_STEPS "
        f"and max_steps. Flags win, then variables, then the file. {PREFIX}API_KEYS is never a flag.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", default=argparse.SUPPRESS, help=f"TOML file of settings (or {CONFIG_VARIABLE})")
    for name, field in Settings.model_fields.items():
        default = "unset" if field.default is None else field.default
        text = f"{field.description} (default: {default})"
        if field.annotation is bool:
            action = argparse.BooleanOptionalAction
            parser.add_argument(_flag(name), action=action, default=argparse.SUPPRESS, help=text)
        elif not is_secret(field):  # process lists show flags
            parser.add_argument(_flag(name), default=argparse.SUPPRESS, help=text)
    return parser
