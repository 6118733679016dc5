"""The engine's contract, on a quadratic energy whose hook blocks, counts and fails at will."""

import asyncio
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from models.bundle import Bundle
from models.purifier import CHAINS_PER_BATCH, Preset
from service.engine import Engine, Params
from service.errors import ChainDivergedError, EngineError, OverloadedError, UnavailableError

LIGHT = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)


def params(steps: int = 3, replicates: int = 2, classify: bool = True) -> Params:
    return Params(Preset(num_steps=steps, step_size=0.01, temperature=1.0, replicates=replicates), classify)


async def settled(*futures: "asyncio.Future[Any]") -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 10)


def test_a_result_holds_every_replicate(engine: Engine) -> None:
    async def run() -> None:
        result = await engine.submit(LIGHT.expand(2, -1, -1, -1), params(replicates=3))
        assert result.purified.shape == (3, 2, 1, 4, 4)
        assert result.logits is not None
        assert result.logits.shape == (3, 2, 2)
        assert result.undefended is not None
        assert torch.equal(result.undefended, torch.tensor([[-1.0, 1.0]] * 2))
        assert not torch.equal(result.purified[0], result.purified[1])
        assert min(result.queue_seconds, result.purify_seconds, result.classify_seconds) >= 0

    asyncio.run(run())


def test_no_steps_change_nothing(engine: Engine) -> None:
    result = asyncio.run(_submit(engine, LIGHT, params(steps=0, replicates=1)))
    assert torch.equal(result.purified[0], torch.ones(1, 1, 4, 4))
    assert torch.equal(result.logits[0], result.undefended)


def test_the_chain_descends_the_energy(engine: Engine, energy: Any) -> None:
    energy.gradient_scale = 2e4  # drift -x per step at step size 0.01: one step reaches the minimum, up to noise
    result = asyncio.run(_submit(engine, LIGHT, params(steps=1)))
    assert result.purified.abs().max() < 0.06


def test_purifying_alone_does_not_classify(engine: Engine) -> None:
    result = asyncio.run(_submit(engine, LIGHT, params(classify=False)))
    assert result.logits is None
    assert result.undefended is None


def test_requests_draw_different_noise_and_leave_the_global_generator_alone(engine: Engine) -> None:
    before = torch.get_rng_state()
    first, second = (asyncio.run(_submit(engine, LIGHT, params())).purified for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_many_chains_run_in_bounded_batches(engine: Engine, energy: Any) -> None:
    sizes: list[int] = []
    energy.hook = lambda x: sizes.append(len(x))
    result = asyncio.run(_submit(engine, LIGHT.expand(2, -1, -1, -1), params(steps=1, replicates=50)))
    assert result.purified.shape[:2] == (50, 2)
    assert sizes == [CHAINS_PER_BATCH, 100 - CHAINS_PER_BATCH]


def test_a_failing_request_fails_alone(engine: Engine, energy: Any) -> None:
    async def run() -> None:
        energy.hook = _raise_once(ValueError("secret"))
        bad, good = await settled(engine.submit(LIGHT, params()), engine.submit(LIGHT, params()))
        assert isinstance(bad, EngineError)
        assert bad.status == 500
        assert "secret" not in bad.detail
        assert isinstance(bad.__cause__, ValueError)
        assert good.purified.isfinite().all()
        assert engine.live
        assert engine.ready

    asyncio.run(run())


def test_a_diverged_chain_fails_alone(engine: Engine, energy: Any) -> None:
    async def run() -> None:
        energy.gradient_scale = float("inf")
        (bad,) = await settled(engine.submit(LIGHT, params()))
        assert isinstance(bad, ChainDivergedError)
        assert bad.status == 500
        energy.gradient_scale = 1.0
        assert (await engine.submit(LIGHT, params())).purified.isfinite().all()

    asyncio.run(run())


def test_a_full_queue_refuses(engine: Engine, energy: Any, gate: Any) -> None:
    async def run() -> None:
        energy.hook = gate
        running = engine.submit(LIGHT, params())
        await asyncio.to_thread(gate.reached.wait, 10)
        waiting = [engine.submit(LIGHT, params()) for _ in range(2)]
        with pytest.raises(OverloadedError) as caught:
            engine.submit(LIGHT, params())
        assert caught.value.status == 503
        assert (caught.value.retry_after or 0) >= 1
        gate.opened.set()
        assert all(not isinstance(result, Exception) for result in await settled(running, *waiting))

    asyncio.run(run())


def test_a_cancelled_waiting_request_never_runs(engine: Engine, energy: Any, gate: Any) -> None:
    async def run() -> None:
        energy.hook = gate
        running = engine.submit(LIGHT, params())
        await asyncio.to_thread(gate.reached.wait, 10)
        cancelled, last = engine.submit(LIGHT.expand(5, -1, -1, -1), params()), engine.submit(LIGHT, params())
        cancelled.cancel()
        await asyncio.sleep(0)  # the cancellation reaches the engine's future in a callback of the loop
        sizes: set[int] = set()
        energy.hook = lambda x: sizes.add(len(x))
        gate.opened.set()
        await settled(running, last)
        assert 10 not in sizes

    asyncio.run(run())


def test_a_cancelled_running_request_ends_at_its_next_step(engine: Engine, energy: Any, gate: Any) -> None:
    async def run() -> None:
        energy.hook = gate
        endless = engine.submit(LIGHT, params(steps=10**9))
        await asyncio.to_thread(gate.reached.wait, 10)
        endless.cancel()
        gate.opened.set()
        assert (await asyncio.wait_for(engine.submit(LIGHT, params()), 10)).purified.isfinite().all()

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


def test_stopping_fails_what_runs_and_what_waits(engine: Engine, energy: Any, gate: Any) -> None:
    async def run() -> None:
        energy.hook = gate
        futures = [engine.submit(LIGHT, params(steps=10**9)), engine.submit(LIGHT, params())]
        await asyncio.to_thread(gate.reached.wait, 10)
        stopping = asyncio.ensure_future(asyncio.to_thread(engine.stop))
        await asyncio.to_thread(engine._stopping.wait, 10)
        assert not engine.ready
        gate.opened.set()
        assert all(isinstance(result, UnavailableError) for result in await settled(*futures))
        await stopping

    asyncio.run(run())


def test_a_stalled_step_is_not_live(bundle: Bundle, energy: Any, gate: Any) -> None:
    energy.hook = gate
    engine = Engine(bundle, torch.device("cpu"), stall_timeout=0.01)
    engine.start()
    assert gate.reached.wait(10)
    assert not threading.Event().wait(0.02)
    assert not engine.live
    assert not engine.ready
    gate.opened.set()
    engine.stop()


def test_a_bundle_that_fails_its_warm_up_never_becomes_ready(bundle: Bundle, energy: Any) -> None:
    energy.gradient_scale = float("nan")
    engine = Engine(bundle, torch.device("cpu"))
    engine.start()
    engine._thread.join(10)
    assert not engine.live
    assert not engine.ready


def test_a_classifier_with_other_classes_than_the_manifest_never_becomes_ready(bundle: Bundle) -> None:
    manifest = bundle.manifest.model_copy(update={"class_names": ("dark", "light", "other")})
    engine = Engine(Bundle(bundle.folder, manifest, bundle.defence), torch.device("cpu"))
    engine.start()
    engine._thread.join(10)
    assert not engine.live
    assert not engine.ready


async def _submit(engine: Engine, images: Tensor, how: Params) -> Any:
    return await asyncio.wait_for(engine.submit(images, how), 10)


def _raise_once(error: Exception) -> Any:
    pending = [error]

    def hook(x: Tensor) -> None:
        if pending:
            raise pending.pop()

    return hook
