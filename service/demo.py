"""The demonstration: attack a picture as a stranger to the purifier would, and watch its chains run.

The one module of `service` that needs `attacks_eval`, and only a server that was started with --demo imports it. What
it shows helps an attacker: energies, replicates and a gradient's work.
"""

import asyncio
import secrets
import time
from contextlib import ExitStack
from typing import Annotated

import torch
from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from torch import Tensor

from attacks_eval.defence import Defence
from attacks_eval.pgd import PGD
from attacks_eval.protocol import craft
from attacks_eval.slots import Task
from attacks_eval.threat_model import ThreatModel
from models.bundle import load_bundle
from models.device import resolve_device
from models.pixels import LEVELS, from_uint8, to_unit
from models.streams import Stream
from service.answers import classification, top_predictions
from service.bodies import read_upload
from service.decoding import decode_image
from service.demo_schemas import ATTACK_STEPS, Attacked, AttackOptions
from service.documentation import problems
from service.errors import OverloadedError, ParameterError, SettingsError
from service.events import EventStream
from service.intake import Running, take_in
from service.options import ClassifyOptions
from service.parameters import plan_demonstration
from service.reports import largest_budget
from service.routes import RequestTimeout
from service.settings import Settings
from service.state import service_of
from service.system import check_ready
from service.uploads import refused
from service.watching import Watch, png_base64

MOST_WAITING = 8
"""Attacks under way or waiting; each takes seconds."""
GRADIENT_COST = 3
"""A step of PGD in classifications: forward, and twice that back."""
MAGNIFIED = 10


class Attacker:
    """PGD on the bare classifier, one image at a time, on a copy of the bundle: the engine's is the engine's alone.

    Raises:
        LimpidError: the bundle has no classifier that gradients go through.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.labels_only:
            raise SettingsError("--demo shows probabilities and energies, which --labels-only hides: give one of them")
        self.device = resolve_device(settings.device.split(",")[0].strip())
        self._defence = load_bundle(settings.bundle, self.device).defence
        self._free, self._waiting = asyncio.Semaphore(1), 0

    async def attack(self, pixels: Tensor, target: int | None, budget: int) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [C, H, W] altered by at most `budget`/255, and the bare logits [K] before and after.

        Raises:
            OverloadedError: as many wait already as may.
        """
        if self._waiting >= MOST_WAITING:
            raise OverloadedError(f"{self._waiting} attacks are under way or wait already", retry_after=MOST_WAITING)
        self._waiting += 1
        try:
            async with self._free:
                return await run_in_threadpool(self._attack, pixels, target, budget)
        finally:
            self._waiting -= 1

    def _attack(self, pixels: Tensor, target: int | None, budget: int) -> tuple[Tensor, Tensor, Tensor]:
        clean = to_unit(from_uint8(pixels.to(self.device))).clamp(0.0, 1.0)
        before = self._bare(pixels)
        label = int(before.argmax()) if target is None else target
        threat = ThreatModel(norm="linf", budget=float(budget))
        stream = Stream(("demonstration", secrets.randbits(64)))
        bare = Defence.of(self._defence).bare()
        ((_, made),) = craft(bare, PGD(steps=ATTACK_STEPS), [Task(0, clean, label)], threat, stream)
        altered = threat.round_inside(made, clean).cpu()
        return altered, before, self._bare(altered)

    @torch.no_grad()
    def _bare(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self._defence.classify(from_uint8(pixels.to(self.device))[None])[0].cpu()
        return logits


def demonstration(settings: Settings) -> APIRouter:
    """The routes; raises SettingsError or LimpidError when this bundle can not be attacked here."""
    attacker, router = Attacker(settings), APIRouter(tags=["demonstration"], prefix="/demo")

    @router.post("/attack", responses=problems(413, 415, 422, 429, 503))
    async def attack(request: Request, query: Annotated[AttackOptions, Query()]) -> Attacked:
        """Alter the one image of a form by PGD on the bare classifier, so that it errs."""
        check_ready(request)
        return await _attacked(request, attacker, query)

    @router.post("/classify", responses=problems(413, 415, 422, 429, 503), response_class=Response)
    async def watch(
        request: Request, query: Annotated[ClassifyOptions, Query()], timeout: RequestTimeout = None
    ) -> Response:
        """/classify of one image as events, with `preview` of chains as they run, and `votes` before `result`."""
        with ExitStack() as stack:
            work = await take_in(request, query, timeout, plan_demonstration, stack)
            item = work.items[0]
            if work.several or not isinstance(item, Running):
                raise refused("form", "images", "a demonstration shows one image; send it as `image`")
            seen = Watch(item.ticket, service_of(request).engine.bundle.manifest.class_names)
            return EventStream(request, work, classification, stack.pop_all(), seen.news)

    return router


async def _attacked(request: Request, attacker: Attacker, options: AttackOptions) -> Attacked:
    service, started = service_of(request), time.perf_counter()
    names = service.engine.bundle.manifest.class_names
    _check(options, names, largest_budget(service.engine.bundle.manifest))
    with service.byte_budget.hold() as take:
        upload = await read_upload(request, service.settings, take, masked=False)
        if upload.several or upload.options:
            raise refused(upload.source, "image", "expected one image and nothing beside it; options go into the query")
        cost = (ATTACK_STEPS + 1) * GRADIENT_COST * service.engine.classification_cost
        service.rate_limiter.take(request.state.caller, cost)
        shape, most = service.engine.bundle.manifest.image, service.settings.max_pixels
        async with service.decoders:
            pixels = await run_in_threadpool(decode_image, upload.contents[0], shape, most, options.resize)
    target = None if options.label is None else names.index(options.label)
    altered, before, after = await attacker.attack(pixels, target, options.budget)
    change = altered.int() - pixels.int()
    label = names[int(before.argmax())] if options.label is None else options.label
    return Attacked(
        original_png_base64=png_base64(pixels),
        attacked_png_base64=png_base64(altered),
        difference_png_base64=png_base64((LEVELS / 2 + MAGNIFIED * change).round().clamp(0, LEVELS).to(torch.uint8)),
        label=label,
        budget=options.budget,
        linf_255=float(change.abs().max()),
        steps=ATTACK_STEPS,
        original=top_predictions(before, names, len(names), labels_only=False),
        attacked=top_predictions(after, names, len(names), labels_only=False),
        seconds=round(time.perf_counter() - started, 3),
    )


def _check(options: AttackOptions, names: tuple[str, ...], most: int) -> None:
    if options.budget > most:
        detail = f"{options.budget} is more than the {most} that this server demonstrates"
        raise ParameterError(f"budget: {detail}", [("query.budget", detail)])
    if options.label is not None and options.label not in names:
        detail = f"unknown class {options.label!r}; known: {', '.join(names)}"
        raise ParameterError(f"label: {detail}", [("query.label", detail)])
