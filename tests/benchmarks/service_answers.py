"""What a replica answers: POST /classify with the default preset, one image at a time and from several clients.

Bundles take turns, each behind a real process, over loopback; the figures of docs/operations.md.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from models.bundle import read_manifest
from models.config import Frozen
from models.image_files import encode_png
from tests.benchmarks.load import classify_request, example_image, exchange
from tests.benchmarks.processes import ROOT, BenchmarkError, Server, serving


class Setting(Frozen):
    """The requests.

    Args:
        alone: images that one client asks about, in turn.
        together: images of all `clients`, each of which asks about one at a time.
        rounds: turns of every bundle.
    """

    bundles: tuple[str, ...] = ("models/zoo/cifar10-robust", "models/zoo/cifar10-midrun")
    alone: int = Field(20, ge=1)
    together: int = Field(160, ge=1)
    clients: int = Field(16, ge=1)
    rounds: int = Field(3, ge=1)


def measure_service_answers(setting: Setting) -> dict[str, Any]:
    """Medians over the rounds, and every round's figures, in milliseconds."""
    rounds = [[_answers(bundle, setting) for bundle in setting.bundles] for _ in range(setting.rounds)]
    return {
        "rows": [_row(bundle, turns) for bundle, turns in zip(setting.bundles, zip(*rounds, strict=True), strict=True)]
    }


def _row(bundle: str, turns: Sequence[tuple[float, float]]) -> dict[str, Any]:
    alone, together = zip(*turns, strict=True)
    manifest = read_manifest(ROOT / bundle)
    preset = manifest.preset(manifest.default_preset).model_dump(mode="json")
    medians = {"alone": statistics.median(alone), "together": statistics.median(together)}
    return {"bundle": manifest.name, "digest": manifest.digest, "preset": preset, **medians, "rounds": list(turns)}


def _answers(bundle: str, setting: Setting) -> tuple[float, float]:
    """Milliseconds of one image alone (the median), and of one among many clients'."""
    command = [sys.executable, "-m", "service", "--bundle", bundle, "--port", "0"]
    png = encode_png(example_image(read_manifest(ROOT / bundle).image))
    with serving(command, "/health/ready") as server:
        return asyncio.run(_ask(server, classify_request(server, png), setting))


async def _ask(server: Server, request: bytes, setting: Setting) -> tuple[float, float]:
    await _times(server, request, 2)  # a warm-up
    alone = await _times(server, request, setting.alone)
    start = time.perf_counter()
    shares = [len(range(client, setting.together, setting.clients)) for client in range(setting.clients)]
    await asyncio.gather(*(_times(server, request, share) for share in shares))
    together = (time.perf_counter() - start) / setting.together
    return 1e3 * statistics.median(alone), 1e3 * together


async def _times(server: Server, request: bytes, count: int) -> list[float]:
    """Seconds of each of so many requests, one after the other; raises BenchmarkError for an answer that is none."""
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        reply = await exchange(server, request)
        taken.append(time.perf_counter() - start)
        if reply.status != 200:
            raise BenchmarkError(f"expected 200, got {reply.status}: {reply.body[:200].decode(errors='replace')}")
    return taken
