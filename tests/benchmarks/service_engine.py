"""What continuous batching costs: image-steps a second of the engine against the bare sampler on a batch of its size.

Same network, precision, threads and process, taking turns. The engine is kept full: a new job comes for each that ends.
"""

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from models.bundle import Bundle, load_bundle
from models.config import Frozen
from models.langevin import run_langevin
from models.pixels import from_uint8
from service.engine import Engine
from service.jobs import Params
from tests.benchmarks.aims import at_least
from tests.benchmarks.load import example_image
from tests.benchmarks.processes import BenchmarkError

AIM = 0.95
WARM_UP_SECONDS = 300.0
WARM_UP_STEPS = 5
BACKLOG = 3
"""Jobs in the engine, as a multiple of its slots, so that one is always there to take a free slot."""


class Setting(Frozen):
    """What is measured: `steps` of a full batch in each turn, after `settle` that make the chains' ages mixed.

    Args:
        slots: the batch size; None lets the engine choose.
    """

    bundle: str = "models/zoo/cifar10-midrun"
    rounds: int = Field(7, ge=1)
    steps: int = Field(400, ge=1)
    settle: int = Field(100, ge=0)
    same: tuple[int, ...] = (200,)
    mixed: tuple[int, ...] = (50, 200, 1000)
    slots: int | None = None


class Meter:
    """An engine's observer that times `steps` full batches after the first `settle`."""

    def __init__(self) -> None:
        self.finished = asyncio.Event()
        self._wanted: tuple[int, int] | None = None

    def begin(self, slots: int, settle: int, steps: int) -> None:
        """Measure once, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self.finished.clear()
        self._passed, self._began = 0, 0.0
        self.image_steps, self.seconds, self.quanta, self.full = 0, 0.0, 0, 0
        self._slots, self._wanted = slots, (settle * slots, steps * slots)

    def quantum(self, active: int, bucket: int, steps: int, seconds: float) -> None:
        """Called by the engine's thread."""
        if self._wanted is None:
            return
        settle, wanted = self._wanted
        if self._passed < settle:
            self._passed += active * steps
            self._began = time.perf_counter()
            return
        self.image_steps += active * steps
        self.quanta += 1
        self.full += active == self._slots
        if self.image_steps >= wanted:
            self.seconds, self._wanted = time.perf_counter() - self._began, None
            self._loop.call_soon_threadsafe(self.finished.set)


def measure_service_engine(setting: Setting) -> dict[str, Any]:
    """Image-steps a second of each way, and the engine's as a share of the bare sampler's, round by round."""
    device = torch.device("cpu")
    bundle, meter = load_bundle(Path(setting.bundle), device), Meter()
    engine = Engine(bundle, device, setting.slots, observer=meter)
    engine.start()
    try:
        return asyncio.run(_rounds(engine, meter, bundle, setting))
    finally:
        engine.stop()


async def _rounds(engine: Engine, meter: Meter, bundle: Bundle, setting: Setting) -> dict[str, Any]:
    await _until_ready(engine)
    rates: dict[str, list[float]] = {"bare": [], "same length": [], "mixed lengths": []}
    bare_rate(bundle, engine.slots_total, WARM_UP_STEPS)
    quanta = full = 0
    for _ in range(setting.rounds):
        rates["bare"].append(bare_rate(bundle, engine.slots_total, setting.steps))
        for way, lengths in (("same length", setting.same), ("mixed lengths", setting.mixed)):
            rates[way].append(await engine_rate(engine, meter, lengths, setting))
            quanta, full = quanta + meter.quanta, full + meter.full
    rows = [_row(way, values, rates["bare"]) for way, values in rates.items()]
    return {
        "bundle": bundle.digest,
        "slots": engine.slots_total,
        "full_quanta": full / quanta,
        "rows": rows,
        "aims": [at_least(f"{row['way']}: share of the bare sampler's speed", row["ratio"], AIM) for row in rows[1:]],
    }


async def _until_ready(engine: Engine) -> None:
    async with asyncio.timeout(WARM_UP_SECONDS):
        while not engine.ready:
            if not engine.live:
                raise BenchmarkError("the engine did not survive its warm-up; the log has the cause")
            await asyncio.sleep(0.05)


def bare_rate(bundle: Bundle, batch: int, steps: int) -> float:
    """Image-steps a second of `run_langevin` on one batch, as the bundle's default preset has it."""
    manifest = bundle.manifest
    preset = manifest.presets[manifest.default_preset].model_copy(update={"num_steps": steps})
    images = from_uint8(torch.stack([example_image(manifest.image)] * batch)).contiguous(
        memory_format=torch.channels_last
    )
    start = time.perf_counter()
    run_langevin(bundle.defence.energy, images, preset)
    return batch * steps / (time.perf_counter() - start)


async def engine_rate(engine: Engine, meter: Meter, lengths: Sequence[int], setting: Setting) -> float:
    """Image-steps a second of the full engine, whose jobs have these numbers of steps in turn."""
    jobs, image = cycle(_params(engine.bundle, lengths)), example_image(engine.bundle.manifest.image)

    async def lane() -> None:
        while True:
            await engine.submit(image, next(jobs)).future

    async with asyncio.TaskGroup() as group:
        lanes = [group.create_task(lane()) for _ in range(BACKLOG * engine.slots_total)]
        meter.begin(engine.slots_total, setting.settle, setting.steps)
        await meter.finished.wait()
        for each in lanes:
            each.cancel()
    while engine.outstanding:  # the bare sampler's turn comes when the thread is idle
        await asyncio.sleep(0.01)
    return meter.image_steps / meter.seconds


def _params(bundle: Bundle, lengths: Sequence[int]) -> Iterator[Params]:
    preset = bundle.manifest.presets[bundle.manifest.default_preset]
    for steps in lengths:
        yield Params(preset.model_copy(update={"num_steps": steps, "replicates": 1}), classify=False)


def _row(way: str, values: Sequence[float], bare: Sequence[float]) -> dict[str, Any]:
    ratios = [value / base for value, base in zip(values, bare, strict=True)]
    return {
        "way": way,
        "median": statistics.median(values),
        "slowest": min(values),
        "fastest": max(values),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }
