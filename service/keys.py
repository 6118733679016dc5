"""Who may call: keys from the keys file and from LIMPID_API_KEYS, of which only SHA-256 digests are kept."""

import json
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from models.config import Frozen, read_toml
from service.errors import SettingsError
from service.settings import Settings

Scope = Literal["infer", "metrics", "admin"]
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
SECRET_BYTES = 32
# Anything else may hold a secret that was written in the wrong place, so it is not shown.
SHOWN_WHEN_WRONG = frozenset({"id", "scopes", "rate_limit"})


class Key(Frozen):
    """A caller's name, the SHA-256 of the secret that proves it, and what it may do; `admin` implies every scope."""

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9A-Fa-f]{64}$")
    scopes: frozenset[Scope] = Field(frozenset({"infer"}), min_length=1)
    rate_limit: float | None = Field(None, gt=0)

    @property
    def granted(self) -> frozenset[Scope]:
        """The scopes with those that they imply."""
        return SCOPES if "admin" in self.scopes else self.scopes

    def to_toml(self) -> str:
        """The key's entry in a keys file, without a rate limit."""
        return (
            f"[[keys]]\nid = {json.dumps(self.id)}\nsha256 = {json.dumps(self.sha256)}\n"
            f"scopes = {json.dumps(sorted(self.scopes))}\n"
        )


class _KeysFile(Frozen):
    keys: tuple[Key, ...] = Field(min_length=1)


def load_keys(settings: Settings) -> tuple[Key, ...]:
    """Every key, none when the settings name none; raises SettingsError or ConfigError, without showing a secret."""
    keys = () if settings.keys_file is None else _from_file(settings.keys_file)
    if settings.api_keys is not None:
        keys += tuple(_from_text(settings.api_keys.get_secret_value()))
    for name, values in (("id", [key.id for key in keys]), ("secret", [key.sha256.lower() for key in keys])):
        if repeated := [keys[values.index(value)].id for value, count in Counter(values).items() if count > 1]:
            raise SettingsError(f"keys: expected one {name} a key, the {name} of {', '.join(repeated)} is there twice")
    return keys


def check_demo(settings: Settings, keys: Sequence[Key]) -> None:
    """Raise SettingsError for a demonstration that strangers could use, where others can reach the server."""
    if settings.demo and not keys and not settings.public_demo:
        raise SettingsError(
            f"not demonstrating on {settings.host}: others can reach it, and --demo hands strangers attacks, energies "
            "and replicates. Give --keys-file, or both --insecure and --public-demo to let everybody in"
        )


def new_key(name: str, scopes: str) -> tuple[str, Key]:
    """A random secret and the key that keeps its digest; `scopes` are joined by +."""
    # A command line would take a secret that begins with a dash for a flag.
    while not (secret := secrets.token_urlsafe(SECRET_BYTES))[0].isalnum():
        pass
    return secret, _key(name, secret, scopes, "key")


def _from_file(path: Path) -> tuple[Key, ...]:
    try:
        return _KeysFile.model_validate(read_toml(path)).keys
    except ValidationError as error:
        raise SettingsError("; ".join(f"{path}: {_complaint(item)}" for item in error.errors())) from None


def _from_text(text: str) -> Iterator[Key]:
    for position, entry in enumerate(text.split(","), 1):
        source = f"entry {position} of the api_keys"
        name, *rest = entry.strip().split(":")
        if len(rest) not in (1, 2) or not rest[0] or any(character.isspace() for character in entry.strip()):
            raise SettingsError(f"{source}: expected id:secret or id:secret:scope+scope, without spaces")
        yield _key(name, rest[0], rest[1] if len(rest) == 2 else "infer", source)


def _key(name: str, secret: str, scopes: str, source: str) -> Key:
    try:
        digest = sha256(secret.encode()).hexdigest()
        return Key.model_validate({"id": name, "sha256": digest, "scopes": scopes.split("+")})
    except ValidationError as error:
        raise SettingsError("; ".join(f"{source}: {_complaint(item)}" for item in error.errors())) from None


def _complaint(item: ErrorDetails) -> str:
    location: tuple[Any, ...] = item["loc"]
    shown = f", got {item['input']!r}" if SHOWN_WHEN_WRONG & set(location) and item["type"] != "missing" else ""
    return f"{'.'.join(str(part) for part in location)}: {item['msg']}{shown}"
