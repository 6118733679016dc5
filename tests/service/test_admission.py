"""Who is let in, by arithmetic: a device of 100 image-steps per second, and a queue of 10 seconds."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from service.admission import Admission
from service.errors import DeadlineError, OverloadedAs429Error, OverloadedError, UnavailableError


@dataclass
class Load:
    outstanding: int = 0
    rate: float = 100.0


@pytest.fixture
def load() -> Load:
    return Load()


@pytest.fixture
def admission(load: Load) -> Admission:
    return Admission(load, queue_seconds=10.0, max_requests=2)


def test_work_is_admitted_up_to_the_queues_seconds(admission: Admission) -> None:
    with ExitStack() as held:
        held.enter_context(admission.admit(600, 60))
        held.enter_context(admission.admit(400, 60))
        assert admission.waiting == 1000
        assert admission.fraction == 1.0
        with pytest.raises(OverloadedError) as caught, admission.admit(150, 60):
            pass
        assert caught.value.status == 503
        assert caught.value.retry_after == 2  # 1150 / 100 - 10 = 1.5 seconds until it fits
    assert admission.waiting == 0


def test_what_the_engine_has_done_makes_room(admission: Admission, load: Load) -> None:
    with admission.admit(1000, 60) as reservation:
        reservation.release(600)
        load.outstanding = 600
        assert admission.waiting == 1000
        load.outstanding = 100
        assert admission.waiting == 500
        with admission.admit(500, 60):
            pass
    assert admission.waiting == 100


def test_an_empty_queue_takes_a_request_that_is_longer_than_the_queue(admission: Admission) -> None:
    with admission.admit(5000, 60), pytest.raises(OverloadedError), admission.admit(1, 60):
        pass


def test_a_request_that_can_not_be_done_in_its_time_is_refused_at_once(admission: Admission) -> None:
    with pytest.raises(DeadlineError, match="about 6.0 s here, more than the 5 s"), admission.admit(600, 5):
        pass


def test_an_engine_that_has_not_measured_itself_is_not_ready(admission: Admission, load: Load) -> None:
    load.rate = 0.0
    with pytest.raises(UnavailableError), admission.admit(1, 60):
        pass


def test_places_are_bounded_and_given_back(admission: Admission) -> None:
    for _ in range(3):
        with admission.place(), admission.place(), pytest.raises(OverloadedError), admission.place():
            pass
    assert admission.requests == 0


def test_the_status_of_an_overload_is_the_operators(load: Load) -> None:
    admission = Admission(load, 10.0, 1, OverloadedAs429Error)
    for crowded in (admission.place, lambda: admission.admit(1, 60)):
        with admission.place(), admission.admit(1000, 60), pytest.raises(OverloadedError) as caught, crowded():
            pass
        assert caught.value.status == 429
        assert caught.value.retry_after == 1


def test_nothing_is_let_in_once_closed(admission: Admission) -> None:
    admission.closed = True
    with pytest.raises(UnavailableError) as caught, admission.place():
        pass
    assert caught.value.retry_after == 1


def test_empty_waits_for_the_last_request(admission: Admission) -> None:
    async def run() -> None:
        with admission.place():
            with admission.place():
                waiting = asyncio.ensure_future(admission.empty())
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not waiting.done()
        await asyncio.wait_for(waiting, 10)
        await asyncio.wait_for(admission.empty(), 10)

    asyncio.run(run())
