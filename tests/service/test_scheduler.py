"""Who runs next, on jobs without a device."""

from itertools import count

import pytest
import torch

from models.purifier import Preset
from models.streams import Stream
from service.jobs import Job, Params
from service.scheduler import STRETCH, Scheduler

IMAGE = torch.zeros(1, 1, 1, dtype=torch.uint8)
NUMBERS = count()


def job(steps: int, chains: int = 1, key: str = "") -> Job:
    preset = Preset(num_steps=steps, step_size=0.1, temperature=1.0, replicates=chains)
    return Job(IMAGE, Params(preset), key, None, Stream(("test", next(NUMBERS))))


def run(scheduler: Scheduler, steps: int = 1) -> list[Job]:
    """One quantum: the chosen chains' jobs; finished chains and jobs leave."""
    chosen = scheduler.choose()
    scheduler.ran(steps)
    jobs = [chain.job for chain in chosen]
    for chain in chosen:
        chain.done += steps
        if chain.remaining <= 0:
            chain.job.unfinished.remove(chain)
            if not chain.job.unfinished:
                scheduler.remove(chain.job)
    return jobs


def test_everything_that_fits_runs() -> None:
    scheduler, jobs = Scheduler(8), [job(5, 2), job(9, 3, "other")]
    for each in jobs:
        scheduler.add(each)
    assert sorted(map(id, run(scheduler))) == sorted([id(jobs[0])] * 2 + [id(jobs[1])] * 3)
    assert scheduler.chains == 5


def test_chains_beyond_the_batch_wait() -> None:
    scheduler = Scheduler(4)
    scheduler.add(job(5, 10))
    assert len(scheduler.choose()) == 4
    assert scheduler.chains == 10


@pytest.mark.parametrize("slots", [3, 4, 7])
def test_keys_get_equal_shares_to_the_chain(slots: int) -> None:
    """Whatever their numbers of jobs: after as many quanta as there are keys, each has run exactly `slots` chains."""
    scheduler = Scheduler(slots)
    for key, jobs in {"a": 1, "b": 5, "c": 50}.items():
        for _ in range(jobs):
            scheduler.add(job(1000, 8, key))
    ran = [each.key for _ in range(3) for each in run(scheduler)]
    assert {key: ran.count(key) for key in "abc"} == {"a": slots, "b": slots, "c": slots}


def test_a_share_that_a_key_does_not_use_goes_to_the_others() -> None:
    scheduler = Scheduler(6)
    scheduler.add(job(10, 1, "a"))
    scheduler.add(job(10, 9, "b"))
    keys = [each.key for each in run(scheduler)]
    assert (keys.count("a"), keys.count("b")) == (1, 5)


def test_the_shorter_of_two_requests_of_a_key_goes_first() -> None:
    scheduler, long, short = Scheduler(2), job(2000, 2), job(50, 2)
    scheduler.add(long)
    run(scheduler)
    scheduler.add(short)
    assert [run(scheduler) for _ in range(50)] == [[short, short]] * 50
    assert run(scheduler) == [long, long]


def test_requests_of_one_length_run_in_their_order() -> None:
    scheduler, jobs = Scheduler(2), [job(10, 2) for _ in range(4)]
    for each in jobs:
        scheduler.add(each)
    order = [run(scheduler)[0] for _ in range(40)]
    assert order == [each for each in jobs for _ in range(10)]


def test_a_long_request_is_overtaken_no_more_once_it_has_waited_in_proportion() -> None:
    """A new short request arrives whenever the last is done, for ever; the long one finishes all the same."""
    scheduler, long, steps = Scheduler(1), job(100), 0
    scheduler.add(long)
    while long.unfinished:
        if not any(each is not long for each in scheduler):
            scheduler.add(job(10))
        run(scheduler)
        steps += 1
    assert 100 < steps <= STRETCH * 100 + 2 * 100


def test_a_removed_job_is_gone() -> None:
    scheduler, first, second = Scheduler(2), job(10), job(10, key="b")
    scheduler.add(first)
    scheduler.add(second)
    scheduler.remove(first)
    assert run(scheduler) == [second]
    scheduler.remove(second)
    assert scheduler.choose() == []
    assert list(scheduler) == []
