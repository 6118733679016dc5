"""What every request to the defence goes through before its chains run, in this order, and nothing before its turn:

a place -> the body, within limits -> parameters -> the cost -> the queue -> the caller's rate -> decoding -> tickets.

The rate is last of what may refuse without looking at an image, so that a request which found no room costs nothing.
"""

import hashlib
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from torch import Tensor

from models.manifest import ImageShape, Manifest
from service.admission import Reservation
from service.auth import Caller
from service.bodies import read_upload
from service.decoding import decode_image, decode_mask, sniff_format
from service.errors import DeadlineError, DecodingError, ParameterError, RequestError, UnavailableError
from service.jobs import Result, Ticket
from service.options import PurifyOptions
from service.parameters import Plan, check_cost, merge_options
from service.settings import Settings
from service.state import service_of
from service.uploads import Upload

TIMEOUT_HEADER = "X-Request-Timeout"
ANSWERED = "answered"
# Of several images, these fail all, any other error only its own.
CONCERNS_ALL = (DeadlineError, UnavailableError)

OptionsT = TypeVar("OptionsT", bound=PurifyOptions)
OptionsC = TypeVar("OptionsC", bound=PurifyOptions, contravariant=True)


class Planner(Protocol[OptionsC]):
    """Resolves a route's options; raises ParameterError or AccessError."""

    def __call__(self, options: OptionsC, manifest: Manifest, settings: Settings, caller: Caller, /) -> Plan: ...


@dataclass(frozen=True)
class Running:
    """One image in the engine: its decoded pixels, uint8 [C, H, W], the ticket for its result, and its mask."""

    pixels: Tensor
    ticket: Ticket
    mask: Tensor | None


@dataclass(frozen=True)
class Answered:
    """One image that went through the engine."""

    pixels: Tensor
    result: Result
    mask: Tensor | None


@dataclass(frozen=True)
class Admitted:
    """A request that has room in the queue. `started` and `deadline` are in time.monotonic() seconds."""

    upload: Upload
    plan: Plan
    resize: bool
    reservation: Reservation
    started: float
    deadline: float


@dataclass(frozen=True)
class Work:
    """A request whose images are in the engine, but for those that could not be decoded.

    `deadline` is in time.monotonic() seconds, `cost` in image-steps.
    """

    plan: Plan
    several: bool
    items: tuple[Running | DecodingError, ...]
    deadline: float
    cost: int
    decode_seconds: float

    @property
    def tickets(self) -> list[Ticket]:
        """Of the images that could be decoded."""
        return [item.ticket for item in self.items if isinstance(item, Running)]


async def take_in(
    request: Request, query: OptionsT, timeout: float | None, planner: Planner[OptionsT], stack: ExitStack
) -> Work:
    """From a request to its tickets; raises the RequestError of the first stage that refuses it.

    Args:
        stack: gives up the request's place, its share of the queue and its tickets, when it is closed.
        timeout: seconds that decoding and the engine may take; None for the server's own.
    """
    service = service_of(request)
    with service.byte_budget.hold() as take:
        with service.metrics.entering():
            stack.enter_context(service.admission.place())
            upload = await read_upload(request, service.settings, take, query.takes_mask)
            admitted = _admit(request, query, upload, timeout, planner, stack)
        with service.metrics.underway():
            return await _begin(request, admitted, stack)


def _admit(
    request: Request,
    query: OptionsT,
    upload: Upload,
    timeout: float | None,
    planner: Planner[OptionsT],
    stack: ExitStack,
) -> Admitted:
    """Everything between the body's arrival and its decoding."""
    service, caller = service_of(request), request.state.caller
    options = merge_options(query, request.query_params.multi_items(), upload)
    plan = planner(options, service.engine.bundle.manifest, service.settings, caller)
    plan = plan.priced(service.engine.classification_cost)
    seconds = _seconds(timeout, service.settings)
    cost = check_cost(plan, len(upload.contents), service.settings)
    started = time.monotonic()
    reservation = stack.enter_context(service.admission.admit(cost, seconds))
    service.rate_limiter.take(caller, cost)
    return Admitted(upload, plan, options.resize, reservation, started, started + seconds)


async def _begin(request: Request, admitted: Admitted, stack: ExitStack) -> Work:
    """Decode the images and hand them to the engine."""
    upload, plan, deadline = admitted.upload, admitted.plan, admitted.deadline
    _note(request, upload, plan)
    mask = await _decode_mask(request, upload.mask, admitted.resize)
    decoded = await _decode(request, upload, admitted.resize, deadline)
    decode_seconds = time.monotonic() - admitted.started
    items = tuple(_start(request, plan, image, mask, deadline, stack) for image in decoded)
    admitted.reservation.release(admitted.reservation.cost)  # from here on it is the engine that counts
    cost = plan.params.cost * sum(isinstance(item, Running) for item in items)
    return Work(plan, upload.several, items, deadline, cost, decode_seconds)


def settle(request: Request, work: Work) -> list[Answered | RequestError]:
    """What became of each image, its ticket being done; raises what concerns all of them, or the only one."""
    metrics = service_of(request).metrics
    outcomes: list[Answered | RequestError] = []
    for item in work.items:
        outcome = item if isinstance(item, DecodingError) else _settled(item)
        if isinstance(outcome, Answered):
            metrics.finished(outcome.pixels, outcome.result, outcome.mask)
        elif not isinstance(outcome, DecodingError):
            metrics.failed(outcome)
        if isinstance(outcome, CONCERNS_ALL) or (isinstance(outcome, RequestError) and not work.several):
            raise outcome
        outcomes.append(outcome)
    names = [outcome.slug if isinstance(outcome, RequestError) else ANSWERED for outcome in outcomes]
    request.state.log.update(outcome=names)
    return outcomes


def _settled(item: Running) -> Answered | RequestError:
    try:
        return Answered(item.pixels, item.ticket.future.result(), item.mask)
    except RequestError as error:
        return error


def _seconds(timeout: float | None, settings: Settings) -> float:
    if timeout is None:
        return settings.request_timeout
    if timeout > settings.request_timeout:
        detail = f"{timeout:g} seconds are more than this server's {settings.request_timeout:g}"
        raise ParameterError(f"{TIMEOUT_HEADER}: {detail}", [(f"header.{TIMEOUT_HEADER}", detail)])
    return timeout


async def _decode(request: Request, upload: Upload, resize: bool, deadline: float) -> list[Tensor | DecodingError]:
    """Each image, or why it is refused; raises the only one's error, and DeadlineError between two images."""
    service, digests = service_of(request), request.state.log.setdefault("sha256", [])
    shape, max_pixels = service.engine.bundle.manifest.image, service.settings.max_pixels
    decoded: list[Tensor | DecodingError] = []
    for content in upload.contents:
        try:
            async with service.decoders:
                if time.monotonic() >= deadline:
                    raise DeadlineError("the request's time was up before its images were decoded")
                decoded.append(await run_in_threadpool(_read, content, shape, max_pixels, resize, digests))
        except DecodingError as error:
            service.metrics.failed(error)
            if not upload.several:
                raise
            decoded.append(error)
    return decoded


async def _decode_mask(request: Request, content: bytes | None, resize: bool) -> Tensor | None:
    """The one mask of all images; raises its DecodingError, which concerns them all."""
    service = service_of(request)
    if content is None:
        return None
    try:
        async with service.decoders:
            shape, max_pixels = service.engine.bundle.manifest.image, service.settings.max_pixels
            return await run_in_threadpool(decode_mask, content, shape, max_pixels, resize)
    except DecodingError as error:
        service.metrics.failed(error)
        raise


def _read(content: bytes, shape: ImageShape, max_pixels: int, resize: bool, digests: list[str]) -> Tensor:
    """Decode the image, its digest for the log having joined the others: enough to tell two images apart."""
    digests.append(hashlib.sha256(content).hexdigest()[:16])
    return decode_image(content, shape, max_pixels, resize)


def _start(
    request: Request,
    plan: Plan,
    image: Tensor | DecodingError,
    mask: Tensor | None,
    deadline: float,
    stack: ExitStack,
) -> Running | DecodingError:
    """Hand a decoded image to the engine."""
    if isinstance(image, DecodingError):
        return image
    engine, caller = service_of(request).engine, request.state.caller
    ticket = engine.submit(image, plan.params, caller.id, deadline, plan.seed, mask)
    stack.callback(ticket.future.cancel)
    return Running(image, ticket, mask)


def _note(request: Request, upload: Upload, plan: Plan) -> None:
    """What the log line says of the request: never an image."""
    request.state.log.update(
        format=[sniff_format(content) for content in upload.contents],
        preset=plan.preset_name,
        steps=plan.params.preset.num_steps,
        replicates=plan.params.preset.replicates,
    )
