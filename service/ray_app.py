"""The same application under Ray Serve: `serve deploy docker/ray/serve.yaml` imports `build` from here.

Ray routes requests and keeps as many replicas as are needed; batching, admission and deadlines stay each replica's own.
Ray's client, job and dashboard ports run any code for whoever reaches them: see `docs/operations-ray.md`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from service.app import create_app
from service.decoding import make_strict
from service.errors import SettingsError, UnavailableError
from service.fleet import Fleet
from service.keys import check_demo, load_keys
from service.logs import configure_logging
from service.ray_scaling import METRIC
from service.settings import Settings
from service.state import Service

if TYPE_CHECKING:
    from ray.serve import Application

NAME = "limpid"
GRACE_SECONDS = 10.0
"""What stopping may take beyond the longest request."""
MOST_QUEUED = 64
"""Requests that a proxy holds while every replica is full."""
RETRY_AFTER = 5
"""Seconds, when a proxy's queue is full as well; replicas compute theirs."""
POLL_SECONDS = 0.05


def build(settings: Settings) -> "Application":
    """Ray Serve's builder; `args` of the deployment's file are `settings`, by their names.

    Replicas, their resources and how their number is chosen belong to the deployment's file; what must agree with the
    settings is set here.

    Raises:
        SettingsError: no keys, though Ray's proxy may be reached by others, or secrets that its dashboard would show.
    """
    from ray import serve

    check_settings(settings)

    def application() -> FastAPI:
        return make_application(settings)

    replica = serve.ingress(application)(Replica)
    options: dict[str, Any] = {
        "max_ongoing_requests": settings.max_requests,
        "max_queued_requests": MOST_QUEUED,
        "backpressure_config": {"status_code": settings.overload_status, "retry_after_s": RETRY_AFTER},
        "graceful_shutdown_timeout_s": settings.body_timeout + settings.request_timeout + GRACE_SECONDS,
        "health_check_period_s": 5.0,
        "health_check_timeout_s": 30.0,
    }
    return serve.deployment(replica, name=NAME, **options).bind()


def check_settings(settings: Settings) -> None:
    """Raise SettingsError unless the settings are safe where others can see and reach them."""
    if settings.api_keys is not None:
        raise SettingsError("api_keys would be shown by Ray's dashboard; give keys_file, which holds digests alone")
    keys = load_keys(settings)
    if not (keys or settings.insecure):
        raise SettingsError(
            "Ray's proxy may be reached by others, and no keys are configured: give keys_file or insecure"
        )
    check_demo(settings, keys)


def make_application(settings: Settings) -> FastAPI:
    """The application of one replica, which has started once its engine is warm: no request meets a cold one."""
    configure_logging(settings.log_level, settings.log_format, sys.stderr)
    make_strict()
    app = create_app(settings)
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def warm(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan(app):
            await _warmed_up(app.state.service.engine)
            yield

    app.router.lifespan_context = warm
    return app


async def _warmed_up(engine: Fleet) -> None:
    while not engine.ready:
        if not engine.live:
            raise UnavailableError("the engine died while it warmed up; the replica's log has the cause")
        await asyncio.sleep(POLL_SECONDS)


class Replica:
    """What Ray asks of a replica beside requests; `app` is the application, which Ray Serve sets."""

    app: FastAPI

    @property
    def _service(self) -> Service:
        service: Service = self.app.state.service
        return service

    def check_health(self) -> None:
        """Raise UnavailableError, for Ray to replace the replica, when the engine has died or stalled."""
        if not self._service.engine.live:
            age = self._service.engine.heartbeat_age
            raise UnavailableError(f"the engine showed its last sign of life {age:.0f} s ago")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Seconds of work that wait here, what runs included."""
        admission, rate = self._service.admission, self._service.engine.rate
        return {METRIC: admission.waiting / rate if rate else 0.0}
