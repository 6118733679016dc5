"""The application factory; importing this module has no effect."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from models.bundle import load_bundle
from models.device import resolve_device
from service import problems, routes
from service.admission import Admission
from service.documentation import DESCRIPTION, describe_problems
from service.engine import Engine
from service.middleware import RequestContext
from service.parameters import check_default_preset
from service.settings import Settings


def build_engine(settings: Settings) -> Engine:
    """Load the bundle onto its device; raises LimpidError or SettingsError that names what is wrong."""
    device = resolve_device(settings.device)
    bundle = load_bundle(settings.bundle, device, settings.runtime)
    check_default_preset(bundle.manifest, settings)
    return Engine(bundle, device, stall_timeout=settings.stall_timeout)


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """The application; its lifespan loads the bundle, unless `engine` holds it, and starts and stops the engine."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = await run_in_threadpool(build_engine, settings) if engine is None else engine
        running.start()
        app.state.service = routes.Service(settings, running, Admission(running, 30.0, settings.queue_limit))
        try:
            yield
        finally:
            await run_in_threadpool(running.stop)

    # FastAPI's own /docs loads its scripts from a content network; this one ships them.
    app = FastAPIOffline(
        title="Limpid",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        static_url="/docs/assets",
    )
    problems.install(app)
    app.add_middleware(RequestContext)
    app.include_router(routes.defence)
    app.include_router(routes.defence, prefix="/v1")
    app.include_router(routes.system)
    describe_problems(app)
    return app
