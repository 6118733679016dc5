"""The deployment files as data."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


class _Loader(yaml.SafeLoader):
    """YAML with Compose's own tag."""


class Override(list[Any]):
    """A list that replaces the one of the file below, where others are joined."""


_Loader.add_constructor("!override", lambda loader, node: Override(loader.construct_sequence(node, deep=True)))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.load_all(path.read_text(), _Loader))


def merged(below: Any, above: Any) -> Any:
    """Maps joined key by key and lists end to end, as Compose does with two files."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: merged(below[key], value) if key in below else value for key, value in above.items()}
    if isinstance(below, list) and isinstance(above, list) and not isinstance(above, Override):
        return below + above
    return above
