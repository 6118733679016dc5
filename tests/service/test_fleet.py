"""Several engines as one."""

import asyncio

import pytest
import torch

from models.bundle import Bundle
from models.purifier import Preset
from service.engine import Engine
from service.errors import UnavailableError
from service.fleet import Fleet
from service.jobs import Params
from tests.service.conftest import wait_for

IMAGE = torch.zeros((1, 4, 4), dtype=torch.uint8)
ENDLESS = Params(Preset(num_steps=10**9, step_size=0.01, temperature=1.0, replicates=1))
SHORT = Params(Preset(num_steps=2, step_size=0.01, temperature=1.0, replicates=1))


def test_work_goes_to_the_engine_that_is_free_first_and_never_to_a_dead_one(bundle: Bundle) -> None:
    engines = [Engine(bundle, torch.device("cpu"), slots=2, threads=1) for _ in range(2)]
    fleet = Fleet(engines)
    fleet.start()
    wait_for(lambda: fleet.ready)

    async def run() -> None:
        tickets = [fleet.submit(IMAGE, ENDLESS) for _ in range(2)]
        assert [engine.outstanding > 0 for engine in engines] == [True, True]
        assert fleet.outstanding == sum(engine.outstanding for engine in engines)
        for ticket in tickets:
            ticket.future.cancel()
        await asyncio.to_thread(engines[0].stop)
        assert not fleet.live
        for _ in range(3):
            result = await asyncio.wait_for(fleet.submit(IMAGE, SHORT).future, 10)
            assert result.purified.isfinite().all()
        await asyncio.to_thread(engines[1].stop)
        with pytest.raises(UnavailableError):
            fleet.submit(IMAGE, SHORT)

    asyncio.run(run())
