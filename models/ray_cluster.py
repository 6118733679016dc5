"""A connection to a Ray cluster, for commands that spread their work over one."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from models.errors import ConfigError

CONNECT_SECONDS = 10.0


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """Ray, connected until the end; its modules beside the core are the caller's to import.

    Args:
        address: HOST:PORT of a cluster's head, or `auto` for the one that runs on this machine.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers of every run
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--ray needs Ray: pip install -e '.[ray]'") from error
    try:
        if ":" in address:  # Ray itself tries for minutes
            socket.create_connection(split_address(address), CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="warning")
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster answers at {address}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT apart; raises ValueError when the port is not a number."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("ray://").strip("[]"), int(port)


def machines(ray: Any, resource: str) -> int:
    """How many CPUs or GPUs the cluster has, at least 1."""
    return max(1, int(ray.cluster_resources().get(resource, 1)))
