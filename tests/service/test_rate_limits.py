"""Token buckets in closed form, on a clock that the tests move."""

import pytest

from service.auth import Caller
from service.errors import RateLimitedError
from service.rate_limits import RateLimiter

ANN, BOB = (Caller(name, frozenset({"infer"})) for name in ("ann", "bob"))


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refusal(limiter: RateLimiter, caller: Caller, cost: int) -> RateLimitedError:
    with pytest.raises(RateLimitedError) as caught:
        limiter.take(caller, cost)
    assert caught.value.status == 429
    return caught.value


def test_a_full_bucket_is_rate_times_burst_and_refills_at_the_rate(clock: Clock) -> None:
    limiter = RateLimiter(rate=10.0, burst_seconds=60.0, clock=clock)
    limiter.take(ANN, 600)
    assert refusal(limiter, ANN, 1).retry_after == 1
    clock.now += 5.0
    assert refusal(limiter, ANN, 51).retry_after == 1
    limiter.take(ANN, 50)
    assert refusal(limiter, ANN, 1).retry_after == 1


@pytest.mark.parametrize(("cost", "seconds"), [(1, 1), (10, 1), (11, 2), (599, 60), (600, 60)])
def test_retry_after_is_the_first_whole_second_at_which_the_cost_is_there(
    clock: Clock, cost: int, seconds: int
) -> None:
    limiter = RateLimiter(rate=10.0, burst_seconds=60.0, clock=clock)
    limiter.take(ANN, 600)
    assert refusal(limiter, ANN, cost).retry_after == seconds
    clock.now += seconds - 1
    if seconds > 1:
        refusal(limiter, ANN, cost)
    clock.now += 1
    limiter.take(ANN, cost)


def test_a_refused_request_costs_nothing_and_waiting_saves_up_no_more_than_the_burst(clock: Clock) -> None:
    limiter = RateLimiter(rate=10.0, burst_seconds=2.0, clock=clock)
    limiter.take(ANN, 15)
    for _ in range(3):
        refusal(limiter, ANN, 6)
    limiter.take(ANN, 5)
    clock.now += 1e6
    limiter.take(ANN, 20)
    refusal(limiter, ANN, 1)


def test_more_than_the_burst_is_never_affordable_and_says_so(clock: Clock) -> None:
    error = refusal(RateLimiter(rate=2.5, burst_seconds=60.0, clock=clock), ANN, 151)
    assert error.retry_after is None
    assert "costs 151 image-steps" in error.detail
    assert "at most 150" in error.detail


def test_keys_have_their_own_buckets_and_may_have_their_own_rate(clock: Clock) -> None:
    limiter = RateLimiter(rate=1.0, burst_seconds=10.0, rates={"bob": 3.0}, clock=clock)
    limiter.take(ANN, 10)
    limiter.take(BOB, 30)
    assert refusal(limiter, ANN, 9).retry_after == 9
    assert refusal(limiter, BOB, 9).retry_after == 3


def test_without_a_rate_only_the_keys_that_have_one_are_limited(clock: Clock) -> None:
    limiter = RateLimiter(rate=None, burst_seconds=1.0, rates={"bob": 1.0}, clock=clock)
    for _ in range(3):
        limiter.take(ANN, 10**9)
    refusal(limiter, BOB, 2)
