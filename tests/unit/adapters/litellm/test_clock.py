"""The estimated offset of another clock: narrow, with a correct error, and replaced if answers contradict it."""

import random
from email.utils import formatdate

import pytest

from server.adapters.litellm.clock import UNKNOWN_SECONDS, GatewayClock

NOON = 1_800_000_000.0


class Wall:
    """Our clock, which the test advances."""

    def __init__(self) -> None:
        self.seconds = NOON

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def clock(wall: Wall) -> GatewayClock:
    return GatewayClock(wall)


def answers(clock: GatewayClock, wall: Wall, times: int, *, ahead: float, oldest: float = 1.0, seed: int = 1) -> None:
    """Answers of a gateway whose clock is ahead by this much, and whose `Date` is up to `oldest` seconds old."""
    luck = random.Random(seed)
    for _ in range(times):
        wall.seconds += luck.uniform(0.3, 3)
        asked_at = wall.seconds
        wall.seconds += luck.uniform(0.002, 0.05)
        date = formatdate(wall.seconds + ahead - luck.uniform(0, oldest), usegmt=True)
        wall.seconds += luck.uniform(0.002, 0.05)
        clock.observe(date, asked_at)


def test_before_the_first_answer_the_error_is_large(clock: GatewayClock) -> None:
    assert (clock.ahead, clock.error) == (0.0, UNKNOWN_SECONDS)


@pytest.mark.parametrize("ahead", [0.0, 0.4, -7.25, 3600.0, -86400.5])
@pytest.mark.parametrize("seed", range(5))
def test_the_offset_is_within_the_error_which_becomes_small(
    clock: GatewayClock, wall: Wall, ahead: float, seed: int
) -> None:
    answers(clock, wall, 1, ahead=ahead, seed=seed)
    assert abs(clock.ahead - ahead) <= clock.error < 1.5
    answers(clock, wall, 200, ahead=ahead, seed=seed)
    assert abs(clock.ahead - ahead) <= clock.error < 0.5


def test_a_slow_answer_has_a_larger_error(clock: GatewayClock, wall: Wall) -> None:
    asked_at, wall.seconds = wall.seconds, wall.seconds + 20
    clock.observe(formatdate(wall.seconds - 20, usegmt=True), asked_at)
    assert abs(clock.ahead) <= clock.error
    assert clock.error > 10


def test_the_error_grows_with_time(clock: GatewayClock, wall: Wall) -> None:
    answers(clock, wall, 100, ahead=0)
    narrow = clock.error
    wall.seconds += 600
    assert clock.error == pytest.approx(narrow + 0.3)


@pytest.mark.parametrize("step", [30.0, -30.0, 90000.0])
def test_a_clock_that_was_set_is_followed_after_a_few_answers(clock: GatewayClock, wall: Wall, step: float) -> None:
    answers(clock, wall, 50, ahead=0)
    for _ in range(2):
        answers(clock, wall, 1, ahead=step)
        assert abs(clock.ahead - step) <= clock.error
    assert clock.error < 1.5


def test_one_date_that_is_far_too_old_is_corrected(clock: GatewayClock, wall: Wall) -> None:
    answers(clock, wall, 50, ahead=2)
    answers(clock, wall, 1, ahead=2 - 8)
    assert abs(clock.ahead - 2) <= clock.error
    answers(clock, wall, 1, ahead=2)
    assert abs(clock.ahead - 2) <= clock.error < 1.5


@pytest.mark.parametrize(
    "date", [None, "", "yesterday", "Thu, 99 Nov 2026 07:25:20 GMT", "Thu, 26 Nov 99999999999 07:25:20 GMT"]
)
def test_an_invalid_date_is_ignored(clock: GatewayClock, wall: Wall, date: str | None) -> None:
    clock.observe(date, wall.seconds)
    assert clock.error == UNKNOWN_SECONDS


def test_a_date_without_a_zone_is_utc(clock: GatewayClock, wall: Wall) -> None:
    clock.observe(formatdate(wall.seconds, usegmt=True).replace("GMT", "-0000"), wall.seconds)
    assert abs(clock.ahead) <= clock.error < 1.5


def test_an_answer_during_which_our_clock_was_set_back_is_ignored(clock: GatewayClock, wall: Wall) -> None:
    clock.observe(formatdate(wall.seconds, usegmt=True), wall.seconds + 5)
    assert clock.error == UNKNOWN_SECONDS
