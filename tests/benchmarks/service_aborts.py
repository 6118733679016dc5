"""Clients that leave: every request is given up, by closing its socket, while it waits or its chain runs.

Afterwards nothing of them may be left: no slot taken, no work counted as waiting, no memory, and no place for requests
held, so that the server answers the next client.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from pydantic import Field

from models.bundle import read_manifest
from models.config import Frozen
from models.image_files import encode_png
from tests.benchmarks.aims import at_least, at_most
from tests.benchmarks.load import example_image, exchange, get_request, purify_request
from tests.benchmarks.processes import ROOT, BenchmarkError, Server, serving

RETRY_SECONDS = 1.0
IDLE_SECONDS = 30.0
LIMIT_SECONDS = 1800.0
GIVEN_UP = "given up"
GAUGES = ("ebm_slots_active", "ebm_queue_depth", "ebm_queue_cost")


class Setting(Frozen):
    """The clients.

    Args:
        aborts: requests to give up, after `warm_up` of them have filled the caches of all allocators.
        clients: how many are at it at a time.
        patience: a client leaves at a random time of up to so many seconds.
        growth: MiB by which the server's memory may differ afterwards.
        flags: more of `python -m service`: fewer slots than clients, and room for all of them in the queue, so that
            requests are given up there and in the batch.
    """

    bundle: str = "models/zoo/cifar10-midrun"
    aborts: int = Field(1000, ge=1)
    warm_up: int = Field(100, ge=0)
    steps: int = Field(1000, ge=1)
    clients: int = Field(100, ge=1)
    patience: float = Field(5.0, gt=0)
    growth: float = 32.0
    seed: int = 0
    flags: tuple[str, ...] = ("--slots=32", "--queue-seconds=300")


def measure_service_aborts(setting: Setting) -> dict[str, Any]:
    """What the clients saw, and what the server still held afterwards."""
    command = [sys.executable, "-m", "service", "--bundle", setting.bundle, "--port", "0", *setting.flags]
    manifest = read_manifest(ROOT / setting.bundle)
    png = encode_png(example_image(manifest.image))
    with serving(command, "/health/ready") as server:
        result = asyncio.run(_measure(server, png, setting))
    return {"bundle": manifest.digest} | result


async def _measure(server: Server, png: bytes, setting: Setting) -> dict[str, Any]:
    delays = np.random.default_rng(setting.seed).uniform(0.0, setting.patience, setting.warm_up + setting.aborts)
    request = purify_request(server, png, setting.steps)
    await _give_up(server, request, delays[: setting.warm_up], setting.clients)
    await _until_idle(server)
    before = server.resident()
    endings = await _give_up(server, request, delays[setting.warm_up :], setting.clients)
    left = await _until_idle(server)
    after, reply = server.resident(), await exchange(server, purify_request(server, png, 1))
    return {
        "endings": endings,
        "left": left,
        "resident": [before, after],
        "next_request": reply.status,
        "aims": [
            at_least("requests given up", endings[GIVEN_UP], setting.aborts),
            *(at_most(name, value, 0) for name, value in left.items()),
            at_most("memory's change (MiB)", abs(after - before), setting.growth),
            at_least("next request answered 200", float(reply.status == 200), 1),
        ],
    }


async def _give_up(server: Server, request: bytes, delays: Iterable[float], clients: int) -> "Counter[str]":
    """Send one request for each delay, and leave after so many seconds.

    One that was answered before is sent again, for half as long.

    Returns:
        How often each ending was seen: the status of those that were answered.
    """
    waiting, endings = iter(delays), Counter[str]()

    async def client() -> None:
        for delay in waiting:
            while (ending := await _leave(server, request, delay)) != GIVEN_UP:
                endings[ending] += 1
                delay /= 2  # the server was faster: when few clients are left it always would be
                await asyncio.sleep(RETRY_SECONDS)
            endings[GIVEN_UP] += 1

    async with asyncio.timeout(LIMIT_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return endings


async def _leave(server: Server, request: bytes, delay: float) -> str:
    try:
        async with asyncio.timeout(delay):
            return str((await exchange(server, request)).status)
    except TimeoutError:
        return GIVEN_UP
    except OSError as error:
        return type(error).__name__


async def _until_idle(server: Server) -> dict[str, float]:
    """What the server holds when that is nothing, or after IDLE_SECONDS."""
    deadline = time.monotonic() + IDLE_SECONDS
    while any((held := await _held(server)).values()) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return held


async def _held(server: Server) -> dict[str, float]:
    """The engine's gauges, and how full the queue is for those who ask to be let in."""
    families = text_string_to_metric_families(await _get(server, "/metrics"))
    held = {family.name: family.samples[0].value for family in families if family.name in GAUGES}
    return held | {"queue's fraction": float(json.loads(await _get(server, "/info"))["queue"]["fraction"])}


async def _get(server: Server, path: str) -> str:
    reply = await exchange(server, get_request(server, path))
    if reply.status != 200:
        raise BenchmarkError(f"GET {path} answered {reply.status}, expected 200")
    return reply.body.decode()
