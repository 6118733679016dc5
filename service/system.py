"""Probes, what the server is and allows, and its metrics. None of them waits for the engine."""

from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response

from service import __version__
from service.demo_schemas import ATTACK_STEPS
from service.documentation import METRICS_DOC, problems
from service.errors import UnavailableError
from service.reports import Report, largest_budget, report
from service.state import Service, service_of
from service.system_schemas import DemoInfo, Health, ImageInfo, Index, Info, Limits, PresetInfo, QueueInfo

ENDPOINTS = [
    *("POST /classify", "POST /purify", "POST /restore", "GET /info", "GET /metrics", "GET /health/live"),
    *("GET /health/ready", "GET /health/startup", "GET /v2", "GET /report"),
]
DOCS = "GET /docs"
DEMO = ["POST /demo/attack", "POST /demo/classify"]

system = APIRouter(tags=["system"])


@system.head("/health/live", include_in_schema=False)
@system.get("/health/live", responses=problems(503))
async def live(request: Request) -> Health:
    """Whether the process is worth keeping: 503 when its engine has died or stalled."""
    check_live(request)
    return Health(status="live")


@system.head("/health/ready", include_in_schema=False)
@system.get("/health/ready", responses=problems(503))
async def ready(request: Request) -> Health:
    """Whether to send requests here: 503 until the engine is warm, and once it stops."""
    check_ready(request)
    return Health(status="ready")


@system.head("/health/startup", include_in_schema=False)
@system.get("/health/startup", responses=problems(503))
async def startup(request: Request) -> Health:
    """Whether the engine has warmed up since the process began: 503 until then, and never again."""
    if service_of(request).engine.rate == 0.0:
        raise UnavailableError("the server has not started yet", retry_after=1)
    return Health(status="started")


@system.get("/")
async def index(request: Request) -> Index:
    """What is served here, and within which limits."""
    return Index(**_index(service_of(request)))


@system.get("/info", responses=problems(401, 403))
async def info(request: Request) -> Info:
    """The same, with the version, the device, how busy the server is, and whether it asks for keys."""
    service = service_of(request)
    engine, settings = service.engine, service.settings
    return Info(
        **_index(service),
        version=__version__,
        device=",".join(map(str, engine.devices)),
        queue=QueueInfo(
            fraction=round(service.admission.fraction, 2),
            cost=int(engine.rate * service.admission.queue_seconds),
            slots=engine.slots_total,
        ),
        calibrated=sorted(engine.bundle.manifest.calibration),
        auth_required=settings.keys_file is not None or settings.api_keys is not None,
        demo=DemoInfo(steps=ATTACK_STEPS, max_budget=largest_budget(engine.bundle.manifest)) if settings.demo else None,
    )


@system.get("/report", responses=problems(401, 403))
async def measured(request: Request) -> Report:
    """What was measured of the bundle, the worst case with its attacks, and what was not tried."""
    return report(service_of(request).engine.bundle.manifest)


@system.get("/metrics", **METRICS_DOC)
async def metrics(request: Request) -> Response:
    """Counts, durations and the engine's state, for Prometheus."""
    return Response(service_of(request).metrics.exposition(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def check_live(request: Request) -> None:
    """Raise UnavailableError when the engine has died or stalled."""
    if not service_of(request).engine.live:
        raise UnavailableError("the server is not live")


def check_ready(request: Request) -> None:
    """Raise UnavailableError unless a request would be answered now."""
    service = service_of(request)
    if service.admission.leaving or not service.engine.ready:
        raise UnavailableError("the server is not ready", retry_after=1)


def _index(service: Service) -> dict[str, Any]:
    bundle = service.engine.bundle
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "description": manifest.description,
        "bundle": bundle.digest,
        "image": ImageInfo(**manifest.image.model_dump()),
        "class_names": list(manifest.class_names),
        "presets": {
            name: PresetInfo(steps=preset.num_steps, settle=preset.settle, replicates=preset.replicates)
            for name, preset in manifest.presets.items()
        },
        "default_preset": manifest.default_preset,
        "limits": Limits.model_validate(service.settings.model_dump(include=set(Limits.model_fields))),
        "endpoints": [
            *ENDPOINTS,
            *([DOCS] if service.settings.docs else []),
            *(DEMO if service.settings.demo else []),
        ],
    }
