"""The Open Inference Protocol's health and metadata, which load balancers and KServe know; /classify does the work."""

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request

from service import __version__
from service.documentation import problems
from service.state import service_of
from service.system import check_live, check_ready
from service.system_schemas import ModelMetadata, ModelReady, ServerLive, ServerMetadata, ServerReady, TensorMetadata

PLATFORM = "limpid_midrun_langevin"

open_inference = APIRouter(prefix="/v2", tags=["open inference protocol"])


@open_inference.get("", responses=problems(401, 403))
async def server_metadata() -> ServerMetadata:
    """What serves here."""
    return ServerMetadata(name="limpid", version=__version__, extensions=[])


@open_inference.head("/health/live", include_in_schema=False)
@open_inference.get("/health/live", responses=problems(503))
async def server_live(request: Request) -> ServerLive:
    """As /health/live."""
    check_live(request)
    return ServerLive(live=True)


@open_inference.head("/health/ready", include_in_schema=False)
@open_inference.get("/health/ready", responses=problems(503))
async def server_ready(request: Request) -> ServerReady:
    """As /health/ready."""
    check_ready(request)
    return ServerReady(ready=True)


@open_inference.get("/models/{name}", responses=problems(401, 403, 404, 422))
async def model_metadata(request: Request, name: str) -> ModelMetadata:
    """The bundle's tensors: images as they are uploaded, and what becomes of them."""
    _check_name(request, name)
    bundle = service_of(request).engine.bundle
    shape, classes = bundle.manifest.image, len(bundle.manifest.class_names)
    pixels = [-1, shape.channels, shape.height, shape.width]
    return ModelMetadata(
        name=name,
        versions=[bundle.digest],
        platform=PLATFORM,
        inputs=[TensorMetadata(name="image", datatype="UINT8", shape=pixels)],
        outputs=[
            TensorMetadata(name="purified", datatype="UINT8", shape=pixels),
            TensorMetadata(name="probabilities", datatype="FP32", shape=[-1, classes]),
        ],
    )


@open_inference.get("/models/{name}/ready", responses=problems(401, 403, 404, 422, 503))
async def model_ready(request: Request, name: str) -> ModelReady:
    """As /health/ready, for the one model that is here."""
    _check_name(request, name)
    check_ready(request)
    return ModelReady(name=name, ready=True)


def _check_name(request: Request, name: str) -> None:
    known = service_of(request).engine.bundle.manifest.name
    if name != known:
        raise HTTPException(404, f"unknown model {name[:64]!r}; this server has {known!r}")
