"""The breaker alone: when it opens, for how long, and when it closes."""

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience import Breaker


class Clock:
    """A clock that stands still, in seconds."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("supabase", ErrorCode.SUPABASE_UNAVAILABLE, clock=clock)


def fail(breaker: Breaker, times: int = 5) -> None:
    for _ in range(times):
        breaker.failed()


def pause(breaker: Breaker, clock: Clock) -> float:
    """Advance the clock until a call is admitted, in quarters of a second. Returns the seconds."""
    began = clock.time
    while True:
        try:
            breaker.admit()
        except PlatformError:
            clock.time += 0.25
        else:
            return clock.time - began


def test_it_opens_only_after_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 4)
    breaker.succeeded()
    fail(breaker, 4)
    assert not breaker.is_open
    fail(breaker, 1)
    assert breaker.is_open


def test_a_service_that_was_restarted_is_tried_again_after_half_a_second(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 40)  # all calls that were under way
    assert pause(breaker, clock) == 0.5
    breaker.succeeded()
    breaker.admit()
    breaker.admit()


def test_the_pauses_of_a_service_that_stays_unavailable_grow_to_five_seconds(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    pauses = []
    for _ in range(6):
        pauses.append(pause(breaker, clock))
        breaker.failed()
    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    pause(breaker, clock)
    breaker.succeeded()
    fail(breaker)
    assert pause(breaker, clock) == 0.5


def test_calls_that_fail_after_it_opened_do_not_delay_the_probe(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.time += 0.25
    fail(breaker, 20)
    assert pause(breaker, clock) == 0.25


def test_one_call_at_a_time_is_the_probe(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    pause(breaker, clock)
    with pytest.raises(PlatformError) as refused:
        breaker.admit()
    assert refused.value.retry_after == 1.0
