"""The engine's contract, on a quadratic energy whose hook blocks, counts and fails at will."""

import asyncio
import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from models.bundle import Bundle, load_bundle
from models.langevin import run_langevin
from models.pixels import from_uint8
from models.purifier import Preset
from models.settling import WINDOW
from models.streams import NoiseSource, Stream
from service.engine import Engine
from service.errors import (
    ChainDivergedError,
    DeadlineError,
    EngineError,
    RequestError,
    SettingsError,
    UnavailableError,
)
from service.jobs import Params, Smoothing, Ticket
from tests.service.conftest import DIGITS, wait_for

LIGHT = torch.full((1, 4, 4), 255, dtype=torch.uint8)
DARK = torch.zeros((1, 4, 4), dtype=torch.uint8)
FOREVER = 10**9


def params(steps: int = 3, replicates: int = 2, step_size: float = 0.01, **rest: Any) -> Params:
    preset = Preset(
        num_steps=steps, step_size=step_size, temperature=rest.pop("temperature", 1.0), replicates=replicates
    )
    return Params(preset, **rest)


async def settled(*tickets: Ticket) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*(t.future for t in tickets), return_exceptions=True), 10)


def answer(engine: Engine, image: Tensor, how: Params, **rest: Any) -> Any:
    async def run() -> Any:
        (result,) = await settled(engine.submit(image, how, **rest))
        return result

    return asyncio.run(run())


def test_a_result_holds_every_replicate(engine: Engine) -> None:
    result = answer(engine, LIGHT, params(replicates=3))
    assert result.purified.shape == (3, 1, 4, 4)
    assert result.logits.shape == (3, 2)
    assert torch.equal(result.undefended, torch.tensor([-1.0, 1.0]))
    assert not torch.equal(result.purified[0], result.purified[1])
    assert min(result.queue_seconds, result.purify_seconds, result.classify_seconds) >= 0


def test_no_steps_change_nothing(engine: Engine) -> None:
    result = answer(engine, LIGHT, params(steps=0, replicates=1))
    assert torch.equal(result.purified[0], torch.ones(1, 4, 4))
    assert torch.equal(result.logits[0], result.undefended)
    assert result.energy_drop.tolist() == [0.0]


def test_purifying_alone_does_not_classify(engine: Engine) -> None:
    result = answer(engine, LIGHT, params(classify=False))
    assert result.logits is None
    assert result.undefended is None
    assert result.smoothed_logits is None


def test_each_chain_runs_its_own_steps_with_its_own_settings(engine: Engine) -> None:
    """U = |x|^2 / 2 and next to no noise: n steps leave (1 - step_size^2 / 2T)^n of the image, whoever else runs."""

    async def run() -> None:
        rates = (0.5, 0.1, 0.25)
        cases = [(steps, rates[steps % 3], key) for steps in (1, 2, 3, 5, 8, 13, 40) for key in ("a", "b")]
        tickets = [
            engine.submit(LIGHT, params(steps, 3, 1e-4, temperature=1e-8 / (2 * rate)), key=key)
            for steps, rate, key in cases
        ]
        for (steps, rate, _), result in zip(cases, await settled(*tickets), strict=True):
            expected = (1 - rate) ** steps
            assert torch.allclose(result.purified, torch.full((3, 1, 4, 4), expected), atol=2e-3)
            first_and_last = 8.0 - 8.0 * (1 - rate) ** (2 * (steps - 1))  # 16 pixels, U = 16 x^2 / 2
            assert torch.allclose(result.energy_drop, torch.full((3,), first_and_last), atol=2e-2)

    asyncio.run(run())


def test_the_noise_has_the_variance_of_the_chain(engine: Engine) -> None:
    """x' = (1 - a) x + s z has variance s^2 (1 - (1 - a)^2n) / (1 - (1 - a)^2) after n steps."""
    step_size, drift, steps = 0.1, 0.2, 6
    result = answer(engine, LIGHT, params(steps, 256, step_size, temperature=step_size**2 / (2 * drift)))
    exact = step_size**2 * (1 - (1 - drift) ** (2 * steps)) / (1 - (1 - drift) ** 2)
    assert result.purified.mean() == pytest.approx((1 - drift) ** steps, abs=4 * (exact / 4096) ** 0.5)
    assert result.purified.var() == pytest.approx(exact, rel=4 * (2 / 4096) ** 0.5)


def test_noisy_draws_start_from_noise_of_the_given_size(engine: Engine) -> None:
    """sigma is in [0, 1] units, so twice as much in [-1, 1]; the mean of 16 pixels carries a quarter of it."""
    result = answer(engine, LIGHT, params(0, 1, smoothing=Smoothing(400, 0.1)))
    assert result.smoothed_logits.shape == (400, 2)
    means = result.smoothed_logits[:, 1]
    assert means.std() == pytest.approx(0.2 / 4, rel=4 * (1 / 800) ** 0.5)
    assert torch.equal(result.logits[0], result.undefended)


def test_requests_draw_different_noise_and_leave_the_global_generator_alone(engine: Engine) -> None:
    before = torch.get_rng_state()
    first, second = (answer(engine, LIGHT, params()).purified for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_repeats_an_answer_whatever_runs_beside_it(engine: Engine) -> None:
    alone = answer(engine, LIGHT, params(20, 3), seed=7)

    async def crowded() -> Any:
        others = [engine.submit(DARK, params(50, 3), key=str(n)) for n in range(5)]
        (result,) = await settled(engine.submit(LIGHT, params(20, 3), seed=7))
        await settled(*others)
        return result

    assert torch.equal(asyncio.run(crowded()).purified, alone.purified)
    assert not torch.equal(answer(engine, LIGHT, params(20, 3), seed=8).purified, alone.purified)


def test_on_real_convolutions_a_seed_repeats_every_bit_in_a_crowd() -> None:
    """Two replicates of ours beside two of a neighbour's, then all four of ours: always four chains in the batch."""
    bundle = load_bundle(DIGITS, torch.device("cpu"))
    engine = Engine(bundle, torch.device("cpu"), slots=4, threads=2)
    engine.start()
    wait_for(lambda: engine.ready)
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8) * 4
    preset = bundle.manifest.presets["balanced"].model_copy(update={"num_steps": 40, "replicates": 4})

    async def run() -> None:
        (alone,) = await settled(engine.submit(image, Params(preset), seed=3))
        endless = Params(preset.model_copy(update={"num_steps": FOREVER, "replicates": 2}))
        neighbour = engine.submit(255 - image, endless, key="neighbour")
        (crowded,) = await settled(engine.submit(image, Params(preset), seed=3))
        neighbour.future.cancel()
        assert torch.equal(alone.purified, crowded.purified)
        assert torch.equal(alone.logits, crowded.logits)

    asyncio.run(run())
    engine.stop()


def test_a_chain_that_settles_ends_early_wherever_quanta_end(engine: Engine) -> None:
    """The same steps and states alone and among chains of other lengths, and nothing is left outstanding."""
    preset = params(500, 4, 0.5).preset.model_copy(update={"settle": 2.0})

    async def crowded() -> Any:
        others = [engine.submit(DARK, params(steps, 3), key=str(steps)) for steps in (7, 33, 101)]
        (result,) = await settled(engine.submit(LIGHT, Params(preset), seed=7))
        await settled(*others)
        return result

    alone, among = answer(engine, LIGHT, Params(preset), seed=7), asyncio.run(crowded())
    assert int(alone.steps.max()) < 500
    assert bool((alone.steps % WINDOW == 0).all())
    assert torch.equal(alone.steps, among.steps)
    assert torch.equal(alone.purified, among.purified)
    assert engine.outstanding == 0
    every_step = answer(engine, LIGHT, params(500, 4, 0.5), seed=7)
    assert every_step.steps.tolist() == [500] * 4


def test_settling_chains_are_those_of_the_sampler(engine: Engine, energy: Any) -> None:
    """The same noise through `run_langevin`: the same steps, however many quanta they were cut into."""
    preset = params(300, 6, 0.2).preset.model_copy(update={"settle": 2.0})
    found = answer(engine, LIGHT, Params(preset), seed=11)
    states, steps = [], []
    for number in range(6):
        source = NoiseSource(Stream(("seed", 11)).child("replicate", number), torch.device("cpu"))

        def noise(x: Tensor, source: NoiseSource = source) -> Tensor:
            drawn = torch.empty_like(x)
            source.fill(drawn)
            return drawn

        state, info = run_langevin(energy, from_uint8(LIGHT)[None], preset, randn_like=noise)
        states.append(state[0])
        steps.append(int(info.num_steps))
    assert found.steps.tolist() == steps
    assert len(set(steps)) > 1
    torch.testing.assert_close(found.purified, torch.stack(states))


def test_answers_of_a_key_do_not_wait_behind_anothers(engine: Engine) -> None:
    """One key asks for ten answers of many batches; another's single image is answered after a batch or two."""

    async def run() -> None:
        many = params(0, 1, smoothing=Smoothing(640, 0.1))
        crowd = [engine.submit(LIGHT, many, key="crowd") for _ in range(10)]
        single = engine.submit(LIGHT, params(1, 1), key="single")
        await settled(single)
        assert sum(ticket.future.done() for ticket in crowd) <= 2
        await settled(*crowd)

    asyncio.run(run())


def test_classification_has_a_price(engine: Engine) -> None:
    assert engine.classification_cost >= 1
    priced = params(10, 4, smoothing=Smoothing(6, 0.1), classification_cost=3)
    assert priced.cost == 10 * 10 + 11 * 3
    assert params(10, 4, classify=False, classification_cost=3).cost == 40
    assert params(0, 4).cost == 4


def test_batches_have_the_shapes_of_the_buckets(engine: Engine, energy: Any) -> None:
    sizes: set[int] = set()
    energy.hook = lambda x: sizes.add(len(x))
    answer(engine, LIGHT, params(steps=2, replicates=7))
    assert sizes == {4}  # four chains, then three chains in a batch of four
    sizes.clear()
    answer(engine, LIGHT, params(steps=2, replicates=1))
    assert sizes == {1}


def test_a_short_request_overtakes_a_long_one_that_fills_the_batch(engine: Engine) -> None:
    async def run() -> None:
        long = engine.submit(LIGHT, params(FOREVER, 4))
        while long.steps_done == 0:
            await asyncio.sleep(0)
        short = engine.submit(LIGHT, params(3, 4))
        await settled(short)
        assert not long.future.done()
        assert short.steps_done == short.steps_total == 12
        assert 0 < long.steps_done < long.steps_total
        long.future.cancel()

    asyncio.run(run())


def test_keys_share_the_device(engine: Engine) -> None:
    """A key with forty jobs and a key with one: the one runs as if there were two."""

    async def run() -> None:
        crowd = [engine.submit(LIGHT, params(200, 4), key="crowd") for _ in range(40)]
        single = engine.submit(LIGHT, params(200, 4), key="single")
        await settled(single)
        assert sum(ticket.steps_done for ticket in crowd) <= 3 * single.steps_total
        for ticket in crowd:
            ticket.future.cancel()

    asyncio.run(run())


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
            raise ValueError

    engine.observer = Broken()

    async def run() -> None:
        first, second = await settled(engine.submit(LIGHT, params()), engine.submit(LIGHT, params(FOREVER)))
        assert first.purified.isfinite().all()
        assert isinstance(second, UnavailableError)

    asyncio.run(run())


def test_an_idle_engine_shows_no_active_slots(engine: Engine) -> None:
    answer(engine, LIGHT, params(replicates=4))
    assert (engine.slots_active, engine.queue_depth) == (0, 0)


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


def test_presets_of_two_precisions_are_refused(bundle: Bundle) -> None:
    short = bundle.manifest.presets["short"]
    presets = {"short": short, "other": short.model_copy(update={"precision": "bfloat16"})}
    manifest = bundle.manifest.model_copy(update={"presets": presets})
    with pytest.raises(SettingsError, match="bfloat16"):
        Engine(Bundle(bundle.folder, manifest, bundle.defence), torch.device("cpu"))


def _raise_times(times: int, error: Exception) -> Any:
    pending = [error] * times

    def hook(x: Tensor) -> None:
        if pending:
            raise pending.pop()

    return hook
