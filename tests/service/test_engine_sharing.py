"""Jobs that share the batch: nobody's answer changes, and everybody gets a turn."""

import asyncio
from typing import Any

import torch

from models.bundle import load_bundle
from models.settling import WINDOW
from service.engine import Engine
from service.jobs import Params, Smoothing
from tests.server_process import DIGITS
from tests.service.conftest import wait_for
from tests.service.engine_jobs import DARK, FOREVER, LIGHT, answer, params, settled


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


def test_an_idle_engine_shows_no_active_slots(engine: Engine) -> None:
    answer(engine, LIGHT, params(replicates=4))
    assert (engine.slots_active, engine.queue_depth) == (0, 0)
