"""python -m service: serve a bundle over HTTP."""

import logging
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

import uvicorn

from models.errors import LimpidError
from service.app import build_engine, create_app
from service.decoding import make_strict
from service.engine import Engine
from service.errors import ServiceError, SettingsError
from service.settings import load_settings

GRACEFUL_SECONDS = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; 2 when the settings, the bundle or the address can not be used."""
    try:
        settings = load_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
        engine = build_engine(settings)
        listener = _listen(settings.host, settings.port)
    except (LimpidError, ServiceError) as error:
        print(f"limpid: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    make_strict()
    config = uvicorn.Config(
        create_app(settings, engine),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    _announce(listener, engine)
    with listener, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that port 0 is known before the server runs."""
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(f"can not listen on {host} port {port}: {error}") from error


def _announce(listener: socket.socket, engine: Engine) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    manifest = engine.bundle.manifest
    print(f"Limpid serves {manifest.name} at {url} (documentation: {url}/docs)")
    print(f"  device {engine.device}, bundle {engine.bundle.folder}, digest {engine.bundle.digest}")
    print(f"  curl -F image=@image.png '{url}/classify?resize=true'", flush=True)


if __name__ == "__main__":
    sys.exit(main())
