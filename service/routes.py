"""The routes: what each request goes through, and what its answer is made of."""

import asyncio
import base64
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from torch import Tensor

from models.image_files import encode_png
from models.pixels import distance_l2, distance_linf, from_uint8, to_uint8
from models.purifier import Preset, agreement
from service.admission import Admission
from service.decoding import decode_image
from service.documentation import CLASSIFY_DOC, PURIFY_DOC, problems
from service.engine import Params, Result
from service.errors import UnavailableError
from service.fleet import Fleet
from service.negotiation import prefers
from service.parameters import merge_options, resolve_preset, single_chain
from service.schemas import (
    Classification,
    ClassifyOptions,
    Distance,
    Health,
    ImageInfo,
    Index,
    Limits,
    Prediction,
    PresetInfo,
    Purification,
    PurifyOptions,
    Timings,
)
from service.settings import Settings
from service.uploads import read_upload

T = TypeVar("T")
OptionsT = TypeVar("OptionsT", bound=PurifyOptions)

REQUEST_TIMEOUT = 120.0

defence = APIRouter(tags=["defence"])
system = APIRouter(tags=["system"])


@dataclass(frozen=True)
class Service:
    """What the routes work with; the application's lifespan puts it at `app.state.service`."""

    settings: Settings
    engine: Fleet
    admission: Admission


@dataclass(frozen=True)
class Answer:
    """A request that went through the engine: its decoded pixels, uint8 [C, H, W], and what came of them."""

    pixels: Tensor
    preset_name: str
    preset: Preset
    result: Result


@defence.post("/classify", response_model=Classification, **CLASSIFY_DOC)
async def classify(request: Request, query: Annotated[ClassifyOptions, Query()], response: Response) -> Classification:
    """Purify the image along several independent chains and classify the average of their logits."""
    service = _service(request)
    content, options = await _read(request, query)
    answer = await _run(request, content, options, classify=True)
    result, names = answer.result, service.engine.bundle.manifest.class_names
    assert result.logits is not None
    assert result.undefended is not None
    timings = _timings(request, result)
    response.headers.update(_headers(answer, service.engine.bundle.digest, timings))
    return Classification(
        predictions=_predictions(result.logits.mean(0), names, options.top_k),
        agreement=round(float(agreement(result.logits.unsqueeze(1))[0]), 6),
        undefended=_predictions(result.undefended, names, 1)[0],
        preset=answer.preset_name,
        steps=answer.preset.num_steps,
        replicates=answer.preset.replicates,
        bundle=service.engine.bundle.digest,
        timings=timings,
        request_id=request.state.request_id,
    )


@defence.post("/purify", response_model=Purification, **PURIFY_DOC)
async def purify(request: Request, query: Annotated[PurifyOptions, Query()], response: Response) -> Any:
    """Purify the image along one chain, and return it as a PNG, or in JSON if the Accept header prefers that."""
    service = _service(request)
    content, options = await _read(request, query)
    answer = await _run(request, content, single_chain(options), classify=False)
    purified = to_uint8(answer.result.purified[0])
    png = await run_in_threadpool(encode_png, purified)
    distance, timings = _distance(answer.pixels, purified), _timings(request, answer.result)
    digest = service.engine.bundle.digest
    headers = _headers(answer, digest, timings) | {"Vary": "Accept"}
    if not prefers(request.headers.get("accept", ""), "application/json", "image/png"):
        headers |= {
            "Content-Disposition": 'attachment; filename="purified.png"',
            "X-Limpid-L2": str(distance.l2),
            "X-Limpid-Linf-255": str(distance.linf_255),
        }
        return Response(png, media_type="image/png", headers=headers)
    response.headers.update(headers)
    return Purification(
        png_base64=base64.b64encode(png).decode("ascii"),
        width=purified.shape[2],
        height=purified.shape[1],
        distance=distance,
        preset=answer.preset_name,
        steps=answer.preset.num_steps,
        bundle=digest,
        timings=timings,
        request_id=request.state.request_id,
    )


@system.get("/health/live", responses=problems(503))
async def live(request: Request) -> Health:
    """Whether the process is worth keeping: 503 when its engine has died or stalled."""
    if not _service(request).engine.live:
        raise UnavailableError("the engine thread is dead or stalled; restart the server")
    return Health(status="live")


@system.get("/health/ready", responses=problems(503))
async def ready(request: Request) -> Health:
    """Whether to send requests here: 503 until the engine is warm, and once it stops."""
    if not _service(request).engine.ready:
        raise UnavailableError("the engine is warming up, stopping or dead", retry_after=1)
    return Health(status="ready")


@system.get("/")
async def index(request: Request) -> Index:
    """What is served here, and within which limits."""
    service = _service(request)
    bundle, settings = service.engine.bundle, service.settings
    manifest = bundle.manifest
    return Index(
        name=manifest.name,
        description=manifest.description,
        bundle=bundle.digest,
        image=ImageInfo(width=manifest.image.width, height=manifest.image.height, channels=manifest.image.channels),
        class_names=list(manifest.class_names),
        presets={
            name: PresetInfo(steps=preset.num_steps, replicates=preset.replicates)
            for name, preset in manifest.presets.items()
        },
        default_preset=manifest.default_preset,
        limits=Limits.model_validate(settings.model_dump(include=set(Limits.model_fields))),
        endpoints=["POST /classify", "POST /purify", "GET /health/live", "GET /health/ready", "GET /docs"],
    )


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _read(request: Request, query: OptionsT) -> tuple[bytes, OptionsT]:
    """Take in the body and the parameters."""
    settings = _service(request).settings
    upload = await read_upload(request, settings.max_body_bytes, settings.body_timeout)
    return upload.content, merge_options(query, request.query_params.multi_items(), upload.fields)


async def _run(request: Request, content: bytes, options: PurifyOptions, classify: bool) -> Answer:
    """Admit, decode and submit."""
    service = _service(request)
    manifest, settings = service.engine.bundle.manifest, service.settings
    name, preset = resolve_preset(options, manifest, settings)
    params = Params(preset, classify)
    with service.admission.place(), service.admission.admit(params.cost, REQUEST_TIMEOUT):
        pixels = await run_in_threadpool(decode_image, content, manifest.image, settings.max_pixels, options.resize)
        ticket = service.engine.submit(pixels, params, deadline=time.monotonic() + REQUEST_TIMEOUT)
        return Answer(pixels, name, preset, await _while_connected(request, ticket.future))


async def _while_connected(request: Request, future: "asyncio.Future[T]") -> T:
    """The future's result; cancels it and raises ClientDisconnect when the client leaves first."""
    gone = asyncio.ensure_future(_disconnection(request))
    awaited: set[asyncio.Future[Any]] = {future, gone}
    try:
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise ClientDisconnect
        return future.result()
    finally:
        future.cancel()
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _predictions(logits: Tensor, names: Sequence[str], top_k: int) -> list[Prediction]:
    """The `top_k` most probable classes of logits [K], most probable first."""
    top = logits.double().softmax(0).topk(min(top_k, len(names)))
    return [
        Prediction(label=names[index], index=index, probability=round(probability, 6))
        for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]


def _distance(before: Tensor, after: Tensor) -> Distance:
    """Between the uploaded and the returned pixels, both uint8 [C, H, W]."""
    a, b = from_uint8(before).unsqueeze(0), from_uint8(after).unsqueeze(0)
    return Distance(l2=round(float(distance_l2(a, b)), 4), linf_255=round(float(distance_linf(a, b)), 4))


def _timings(request: Request, result: Result) -> Timings:
    seconds = (result.queue_seconds, result.purify_seconds, result.classify_seconds)
    queue, purify_, classify_ = (round(1000.0 * value, 3) for value in seconds)
    total = round(1000.0 * (time.perf_counter() - request.state.started), 3)
    return Timings(queue_ms=queue, purify_ms=purify_, classify_ms=classify_, total_ms=total)


def _headers(answer: Answer, digest: str, timings: Timings) -> dict[str, str]:
    durations = timings.model_dump().items()
    return {
        "X-Model-Digest": digest,
        "X-Limpid-Preset": answer.preset_name,
        "X-Limpid-Steps": str(answer.preset.num_steps),
        "Server-Timing": ", ".join(f"{name.removesuffix('_ms')};dur={value:g}" for name, value in durations),
    }
