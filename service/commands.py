"""The commands beside serving: `config` shows the effective settings, `key` makes a caller's key."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence

from service.keys import SCOPES, new_key
from service.settings import Settings, is_secret, load_settings, setting_sources


def show_config(arguments: Sequence[str]) -> None:
    """Print the effective settings as a configuration file; secrets are left out."""
    print(render_config(load_settings(arguments, os.environ), setting_sources(arguments, os.environ)), end="")


def make_key(arguments: Sequence[str]) -> None:
    """Print a new key's entry for the keys file on stdout and its secret, which is kept nowhere, on stderr."""
    parser = argparse.ArgumentParser(prog="python -m service key", description="Make a key for a caller.")
    parser.add_argument("name", help="the key's id, which the log shows")
    listed = ", ".join(sorted(SCOPES))
    opened = "metrics opens /metrics and the console's Operations tab"
    scopes = f"joined by +, of {listed} (default: %(default)s); {opened}"
    parser.add_argument("--scopes", default="infer", help=scopes)
    parsed = parser.parse_args(list(arguments))
    secret, key = new_key(parsed.name, parsed.scopes)
    print("The secret is shown once, and the server never stores it. The entry is for the keys file.", file=sys.stderr)
    print(f"Authorization: Bearer {secret}", file=sys.stderr)
    print(key.to_toml(), end="")


def render_config(settings: Settings, sources: Mapping[str, str]) -> str:
    """TOML, one setting a line with its source as a comment; what is unset or secret is a comment as a whole."""
    lines = []
    for name, value in settings.model_dump(mode="json").items():
        if value is None:
            lines.append(f"# {name} is unset  # {sources[name]}")
        elif is_secret(Settings.model_fields[name]):
            lines.append(f"# {name} is set, and not shown  # {sources[name]}")
        else:
            # A string, number or boolean of JSON is one of TOML too, as long as no character is split in two escapes.
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}  # {sources[name]}")
    return "\n".join(lines) + "\n"
