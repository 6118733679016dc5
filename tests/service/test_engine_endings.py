"""Failures, cancelling, deadlines and stopping, on an energy whose hook blocks, counts and fails at will."""

import asyncio
import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from models.bundle import Bundle
from service.engine import Engine
from service.errors import (
    ChainDivergedError,
    DeadlineError,
    EngineError,
    RequestError,
    UnavailableError,
)
from tests.service.engine_jobs import DARK, FOREVER, LIGHT, answer, params, settled


def test_a_batch_that_raises_fails_its_requests_and_no_later_ones(engine: Engine, energy: Any) -> None:
    energy.hook = _raise_times(1, ValueError("secret"))
    bad = answer(engine, LIGHT, params())
    assert isinstance(bad, EngineError)
    assert bad.status == 500
    assert "secret" not in bad.detail
    assert isinstance(bad.__cause__, ValueError)
    assert answer(engine, LIGHT, params()).purified.isfinite().all()
    assert engine.ready
    assert engine.outstanding == 0


def test_the_engine_gives_up_when_every_batch_raises(engine: Engine, energy: Any) -> None:
    energy.hook = _raise_times(3, ValueError())
    for _ in range(3):
        assert isinstance(answer(engine, LIGHT, params()), RequestError)
    engine._thread.join(10)
    assert not engine.live


def test_a_diverged_chain_fails_alone(engine: Engine, energy: Any) -> None:
    """A dark image's energy is not a number; a light one in the same batches never notices."""
    energy.poison = lambda x: x.flatten(1).mean(1) < 0

    async def run() -> None:
        bad, good = await settled(engine.submit(DARK, params(9, 2)), engine.submit(LIGHT, params(9, 2)))
        assert isinstance(bad, ChainDivergedError)
        assert bad.status == 500
        assert good.purified.isfinite().all()

    asyncio.run(run())
    assert answer(engine, LIGHT, params()).purified.isfinite().all()


def test_a_cancelled_waiting_request_never_runs(engine: Engine, energy: Any, gate: Any) -> None:
    async def run() -> None:
        energy.hook = gate
        running = engine.submit(LIGHT, params(replicates=4))
        await asyncio.to_thread(gate.reached.wait, 10)
        cancelled = engine.submit(DARK, params())
        cancelled.future.cancel()
        await asyncio.sleep(0)  # the cancellation reaches the job in a callback of the loop
        seen: list[float] = []
        energy.hook = lambda x: seen.append(float(x.mean()))
        gate.opened.set()
        await settled(running, engine.submit(LIGHT, params()))
        assert seen
        assert min(seen) > 0

    asyncio.run(run())


def test_a_cancelled_running_request_leaves_at_the_next_quantum(engine: Engine, energy: Any, gate: Any) -> None:
    async def run() -> None:
        energy.hook = gate
        endless = engine.submit(LIGHT, params(FOREVER))
        await asyncio.to_thread(gate.reached.wait, 10)
        endless.future.cancel()
        await asyncio.sleep(0)
        gate.opened.set()
        await settled(engine.submit(LIGHT, params()))
        assert endless.steps_done <= 2 * 32  # one quantum of two chains
        assert engine.outstanding == 0

    asyncio.run(run())


def test_deadlines_end_what_waits_and_what_runs(engine: Engine) -> None:
    late = answer(engine, LIGHT, params(FOREVER), deadline=time.monotonic() - 1)
    assert isinstance(late, DeadlineError)
    assert "0 of" in late.detail
    running = answer(engine, LIGHT, params(FOREVER), deadline=time.monotonic() + 0.05)
    assert isinstance(running, DeadlineError)
    assert running.status == 504
    assert engine.outstanding == 0


def test_an_observer_that_raises_leaves_no_request_behind(engine: Engine) -> None:
    class Broken:
        def quantum(self, active: int, bucket: int, steps: int, seconds: float) -> None:
            if active > 2:  # both requests are in
                raise ValueError

    engine.observer = Broken()

    async def run() -> None:
        endless, short = await settled(engine.submit(LIGHT, params(FOREVER)), engine.submit(LIGHT, params()))
        assert short.purified.isfinite().all()
        assert isinstance(endless, UnavailableError)

    asyncio.run(run())


def test_the_threads_death_fails_what_waits_and_shows(engine: Engine, energy: Any, gate: Any) -> None:
    async def run() -> None:
        def die(x: Tensor) -> None:
            gate(x)
            raise SystemExit

        energy.hook = die
        running = engine.submit(LIGHT, params())
        await asyncio.to_thread(gate.reached.wait, 10)
        waiting = engine.submit(LIGHT, params())
        assert engine.live
        gate.opened.set()
        for result in await settled(running, waiting):
            assert isinstance(result, UnavailableError)
            assert result.status == 503
        assert not engine.live
        assert not engine.ready
        with pytest.raises(UnavailableError):
            engine.submit(LIGHT, params())

    asyncio.run(run())


def test_stopping_fails_what_runs_and_what_waits(engine: Engine) -> None:
    async def run() -> None:
        tickets = [engine.submit(LIGHT, params(FOREVER, 4)) for _ in range(3)]
        await asyncio.to_thread(engine.stop)
        assert not engine.ready
        assert all(isinstance(result, UnavailableError) for result in await settled(*tickets))

    asyncio.run(run())


def test_a_stalled_step_is_not_live(bundle: Bundle, energy: Any, gate: Any) -> None:
    energy.hook = gate
    engine = Engine(bundle, torch.device("cpu"), slots=4, threads=1, stall_timeout=0.01)
    engine.start()
    assert gate.reached.wait(10)
    assert not threading.Event().wait(0.02)
    assert not engine.live
    assert not engine.ready
    gate.opened.set()
    engine.stop()


def test_a_bundle_that_fails_its_warm_up_never_becomes_ready(bundle: Bundle, energy: Any) -> None:
    energy.gradient_scale = float("nan")
    engine = Engine(bundle, torch.device("cpu"), slots=4, threads=1)
    engine.start()
    engine._thread.join(10)
    assert not engine.live
    assert not engine.ready


def _raise_times(times: int, error: Exception) -> Any:
    pending = [error] * times

    def hook(x: Tensor) -> None:
        if pending:
            raise pending.pop()

    return hook
