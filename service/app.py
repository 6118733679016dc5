"""The application factory; importing this module has no effect."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from models.bundle import load_bundle
from models.device import resolve_device
from service import problems
from service.admission import Admission
from service.auth import Authentication
from service.byte_budget import ByteBudget
from service.console import Console, load_files
from service.documentation import DESCRIPTION, describe_problems
from service.engine import Engine
from service.errors import OverloadedAs429Error, OverloadedError, SettingsError
from service.fleet import Fleet
from service.http_metrics import HttpMetrics
from service.keys import load_keys
from service.metrics import Metrics
from service.middleware import RequestContext
from service.open_inference import open_inference
from service.own_pages import OwnPagesOnly
from service.parameters import check_default_preset
from service.rate_limits import RateLimiter
from service.routes import defence
from service.settings import Settings
from service.state import Service
from service.system import system

DECODERS = 2
"""Images that are decoded at a time."""


def build_fleet(settings: Settings) -> Fleet:
    """Load the bundle onto each device; raises LimpidError or SettingsError that names what is wrong."""
    engines = []
    for name in settings.device.split(","):
        device = resolve_device(name.strip())
        bundle = load_bundle(settings.bundle, device, settings.runtime)
        check_default_preset(bundle.manifest, settings)
        engines.append(Engine(bundle, device, settings.slots, settings.quantum, settings.stall_timeout))
    return Fleet(engines)


def create_app(settings: Settings, fleet: Fleet | None = None) -> FastAPI:
    """The application; its lifespan loads the bundle, unless `fleet` holds it, and starts and stops the engines."""

    keys, metrics = load_keys(settings), Metrics()
    rates = {key.id: key.rate_limit for key in keys if key.rate_limit is not None}
    rate_limiter = RateLimiter(settings.rate_limit, settings.rate_burst, rates)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = await run_in_threadpool(build_fleet, settings) if fleet is None else fleet
        running.observe(metrics)
        metrics.watch(running)
        running.start()
        overloaded = OverloadedError if settings.overload_status == 503 else OverloadedAs429Error
        admission = Admission(running, settings.queue_seconds, settings.max_requests, overloaded)
        byte_budget = ByteBudget(settings.max_inflight_bytes, overloaded)
        decoders = asyncio.Semaphore(DECODERS)
        app.state.service = Service(settings, running, admission, byte_budget, rate_limiter, metrics, decoders)
        try:
            yield
        finally:
            await run_in_threadpool(running.stop)

    app = _framework(settings, lifespan)
    problems.install(app)
    app.add_middleware(Authentication, keys=keys, insecure=settings.insecure)
    if not keys:
        app.add_middleware(OwnPagesOnly, hosts=(settings.host, *settings.hosts.split(",")))
    app.add_middleware(HttpMetrics, metrics=metrics)
    if settings.ui:
        app.add_middleware(Console, files=load_files())
    app.add_middleware(RequestContext)  # the last one added is the outermost
    for router in (defence, system, open_inference):
        app.include_router(router)
    app.include_router(defence, prefix="/v1")
    if settings.demo:
        app.include_router(_demonstration(settings))
    describe_problems(app)
    return app


def _demonstration(settings: Settings) -> APIRouter:
    try:
        from service.demo import demonstration
    except ModuleNotFoundError as error:
        raise SettingsError(f"--demo makes attacks with attacks_eval, which is not installed here: {error}") from error
    return demonstration(settings)


def _framework(settings: Settings, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    general: dict[str, Any] = {
        "title": "Limpid",
        "version": "1",
        "description": DESCRIPTION,
        "lifespan": lifespan,
        "redirect_slashes": False,
    }
    if not settings.docs:
        return FastAPI(**general, openapi_url=None)
    # FastAPI's own /docs loads its scripts from a content network; this one ships them.
    return FastAPIOffline(**general, redoc_url=None, static_url="/docs/assets")
