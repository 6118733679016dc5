"""What the routes work with."""

import asyncio
from dataclasses import dataclass

from starlette.requests import Request

from service.admission import Admission
from service.byte_budget import ByteBudget
from service.fleet import Fleet
from service.metrics import Metrics
from service.rate_limits import RateLimiter
from service.settings import Settings


@dataclass(frozen=True)
class Service:
    """The parts of one running server; the application's lifespan puts it at `app.state.service`."""

    settings: Settings
    engine: Fleet
    admission: Admission
    byte_budget: ByteBudget
    rate_limiter: RateLimiter
    metrics: Metrics
    decoders: asyncio.Semaphore  # the threads' pool has 40, and as many would starve the engine


def service_of(request: Request) -> Service:
    """The server that answers this request."""
    service: Service = request.app.state.service
    return service
