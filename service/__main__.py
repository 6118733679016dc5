"""python -m service: serve a bundle over HTTP; `config` and `key` are its other commands."""

import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import uvicorn

from models.errors import LimpidError
from service.app import build_fleet, create_app
from service.commands import make_key, show_config
from service.connections import bounded, reserve_files
from service.decoding import make_strict
from service.draining import DrainingServer
from service.errors import ServiceError, SettingsError
from service.fleet import Fleet
from service.keys import Key, check_demo, load_keys
from service.logs import configure_logging
from service.settings import Settings, load_settings

LINGER_SECONDS = 5
"""How long open connections may take to close after the drain."""

COMMANDS = {"config": show_config, "key": make_key}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, or serve until a signal; 2 when the settings, the bundle or the address can not be used."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if words and words[0] in COMMANDS:
            COMMANDS[words[0]](words[1:])
        else:
            _serve(load_settings(words, os.environ))
    except (LimpidError, ServiceError) as error:
        print(f"limpid: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _serve(settings: Settings) -> None:
    keys = load_keys(settings)
    guarded = bool(keys)
    family, address = _resolve(settings.host, settings.port)
    if not ipaddress.ip_address(str(address[0])).is_loopback:
        _check_open(settings, keys)
    reserve_files(settings.max_connections)
    fleet = build_fleet(settings)
    app = create_app(settings, fleet)
    listener = _listen(family, address)
    configure_logging(settings.log_level, settings.log_format, sys.stderr)
    make_strict()
    config = uvicorn.Config(
        app,
        ws="none",
        http=bounded(settings.header_timeout, settings.max_connections),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=LINGER_SECONDS,
    )
    _announce(listener, fleet, settings, guarded)
    with listener, suppress(KeyboardInterrupt):
        DrainingServer(config, settings.drain_delay, settings.drain_timeout).run(sockets=[listener])


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """The address to bind; raises SettingsError when there is none of that name."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"can not listen on {host} port {port}: {error}") from error
    return family, address


def _check_open(settings: Settings, keys: Sequence[Key]) -> None:
    """Raise SettingsError for an address that others can reach, when that is not allowed."""
    check_demo(settings, keys)
    if not keys and not settings.insecure:
        raise SettingsError(
            f"not listening on {settings.host}: others can reach it, and no keys are configured. Give --keys-file "
            "(`python -m service key NAME` makes an entry), or --insecure to let everybody in"
        )


def _listen(family: socket.AddressFamily, address: Any) -> socket.socket:
    """A listening socket, so that port 0 is known before the server runs."""
    try:
        listener = socket.create_server(address, family=family)
    except OSError as error:
        raise SettingsError(f"can not listen on {address[0]} port {address[1]}: {error}") from error
    # Its connections inherit it. asyncio sets it only for sockets whose protocol is named, which this one's is not, and
    # without it the body of every answer waits 40 ms for the client to acknowledge the headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _announce(listener: socket.socket, fleet: Fleet, settings: Settings, guarded: bool) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    bundle, devices = fleet.bundle, ", ".join(map(str, fleet.devices))
    pages = [
        f"{what}: {url}{path}"
        for what, path, there in (("console", "/", settings.ui), ("documentation", "/docs", settings.docs))
        if there
    ]
    print(f"Limpid serves {bundle.manifest.name} at {url}" + (f" ({', '.join(pages)})" if pages else ""))
    print(f"  device {devices}, bundle {bundle.folder}, digest {bundle.digest}")
    key = "-H 'X-API-Key: KEY' " if guarded else ""
    print(f"  curl {key}-F image=@image.png '{url}/classify?resize=true'", flush=True)


if __name__ == "__main__":
    sys.exit(main())
