"""The defence's routes: take a request in, wait for its chains, and answer as its Accept header prefers."""

from collections.abc import Callable
from contextlib import ExitStack, aclosing
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from service.answers import Picture, classification, headers, purification, purified_picture, shared_fields
from service.documentation import CLASSIFY_DOC, PURIFY_DOC, RESTORE_DOC
from service.events import MEDIA_TYPE as EVENTS
from service.events import Compose, EventStream
from service.following import follow
from service.intake import TIMEOUT_HEADER, Answered, OptionsT, Planner, Work, settle, take_in
from service.negotiation import choose
from service.options import ClassifyOptions, PurifyOptions, RestoreOptions
from service.parameters import plan_classification, plan_purification, plan_restoration
from service.restore_schemas import Restoration, Restorations
from service.restoring import restoration, restored_picture
from service.schemas import Classification, Classifications, Purification, Purifications
from service.state import service_of

JSON, PNG = "application/json", "image/png"
TICK_SECONDS = 1.0

RequestTimeout = Annotated[
    float | None,
    Header(
        alias=TIMEOUT_HEADER,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that decoding, waiting and purifying may take; at most, and by default, the server's "
        "request_timeout. Then: 504.",
    ),
]

defence = APIRouter(tags=["defence"])


@defence.post("/classify", response_model=Classification | Classifications, **CLASSIFY_DOC)
async def classify(
    request: Request, query: Annotated[ClassifyOptions, Query()], timeout: RequestTimeout = None
) -> Response:
    """Purify each image along several independent chains and classify the average of their logits."""
    return await _respond(request, query, timeout, plan_classification, classification)


@defence.post("/purify", response_model=Purification | Purifications, **PURIFY_DOC)
async def purify(
    request: Request, query: Annotated[PurifyOptions, Query()], timeout: RequestTimeout = None
) -> Response:
    """Purify each image along one chain; one image comes back as a PNG, or in JSON if the Accept header says so."""
    return await _respond(request, query, timeout, plan_purification, purification, purified_picture)


@defence.post("/restore", response_model=Restoration | Restorations, **RESTORE_DOC)
async def restore(
    request: Request, query: Annotated[RestoreOptions, Query()], timeout: RequestTimeout = None
) -> Response:
    """Make the pixels under the mask's white anew, given the others, as the mean of several independent chains.

    One image comes back as a PNG, or in JSON with a map of the uncertainty if the Accept header says so.
    """
    return await _respond(request, query, timeout, plan_restoration, restoration, restored_picture)


async def _respond(
    request: Request,
    query: OptionsT,
    timeout: float | None,
    planner: Planner[OptionsT],
    compose: Compose,
    draw: Callable[[Answered], Picture] | None = None,
) -> Response:
    """The whole way of a request; `draw` makes the picture that the answer to one image can be instead of JSON."""
    with ExitStack() as stack:
        work = await take_in(request, query, timeout, planner, stack)
        accept = request.headers.get("accept", "")
        pictured = draw is not None and not work.several
        media_type = choose(accept, (PNG, JSON, EVENTS) if pictured else (JSON, EVENTS))
        if media_type == EVENTS:
            return EventStream(request, work, compose, stack.pop_all())
        with service_of(request).metrics.underway():
            async with aclosing(follow(request, work.tickets, work.deadline, TICK_SECONDS)) as ticks:
                async for _ in ticks:
                    pass
            return await run_in_threadpool(_answer, request, work, compose, draw if media_type == PNG else None)


def _answer(request: Request, work: Work, compose: Compose, draw: Callable[[Answered], Picture] | None) -> Response:
    """The finished work's answer; in a worker thread, because it computes on every image of every chain."""
    outcomes = settle(request, work)
    if draw is None:
        answer = compose(request, work, outcomes)
        return Response(answer.model_dump_json(), media_type=JSON, headers=headers(answer))
    (outcome,) = outcomes
    assert isinstance(outcome, Answered)
    picture = draw(outcome)
    own = {"Content-Disposition": f'attachment; filename="{picture.name}"'} | picture.headers
    return Response(picture.png, media_type=PNG, headers=headers(shared_fields(request, work, outcomes)) | own)
