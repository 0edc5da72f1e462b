"""The retry policy: what is retried, the pauses, the end of retries, and the backoff of keys after failures."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice, pairwise

import pytest

from server.aio import cancel_and_wait
from server.resilience import Backoff, FailureBackoff, retry
from tests.virtual_time import virtual_time

EXACT = Backoff(first=1, longest=10, jitter=0)


class _AwayError(Exception):
    pass


class _Service:
    """Raises these errors in order, then returns an answer."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.asked_at: list[float] = []

    async def call(self) -> str:
        self.asked_at.append(asyncio.get_running_loop().time())
        if self._errors:
            raise self._errors.pop(0)
        return "answer"

    @property
    def pauses(self) -> list[float]:
        first = self.asked_at[0]
        times = [round(at - first, 6) for at in self.asked_at]
        return [later - earlier for earlier, later in pairwise(times)]


def test_pauses_double_up_to_the_longest_one_and_never_end() -> None:
    assert list(islice(EXACT.pauses(), 6)) == [1, 2, 4, 8, 10, 10]
    assert EXACT.pause(100_000) == 10


def test_pauses_vary_by_the_jitter() -> None:
    pauses = [Backoff(first=1, longest=10, jitter=0.3).pause(3) for _ in range(200)]
    assert all(2.8 <= pause <= 5.2 for pause in pauses)
    assert len(set(pauses)) > 100


@virtual_time
async def test_a_call_is_retried_until_it_succeeds() -> None:
    service = _Service(_AwayError(), _AwayError(), _AwayError())
    assert await retry(service.call, on=_AwayError, backoff=EXACT) == "answer"
    assert service.pauses == [1, 2, 4]


@virtual_time
async def test_other_errors_are_raised_at_once_unchanged() -> None:
    error = ValueError("no")
    service = _Service(_AwayError(), error)
    with pytest.raises(ValueError, match="no") as raised:
        await retry(service.call, on=_AwayError, backoff=EXACT)
    assert raised.value is error
    assert service.pauses == [1]


@virtual_time
async def test_the_condition_decides_by_the_error() -> None:
    last = _AwayError("for good")
    service = _Service(_AwayError(), last)
    with pytest.raises(_AwayError) as raised:
        await retry(service.call, on=_AwayError, when=lambda error: str(error) != "for good", backoff=EXACT)
    assert raised.value is last
    assert service.pauses == [1]


@virtual_time
async def test_the_last_attempt_raises_its_error() -> None:
    errors = [_AwayError(str(number)) for number in range(5)]
    service = _Service(*errors)
    with pytest.raises(_AwayError) as raised:
        await retry(service.call, on=_AwayError, backoff=EXACT, attempts=3)
    assert raised.value is errors[2]
    assert service.pauses == [1, 2]


@virtual_time
async def test_retries_end_after_the_given_seconds() -> None:
    service = _Service(*(_AwayError() for _ in range(100)))
    with pytest.raises(_AwayError):
        await retry(service.call, on=_AwayError, backoff=EXACT, seconds=20)
    assert service.pauses == [1, 2, 4, 8, 10]


@virtual_time
async def test_each_failure_is_reported_with_the_pause_that_follows() -> None:
    error, reports = _AwayError(), list[tuple[Exception, float]]()
    service = _Service(error, error)
    await retry(service.call, on=_AwayError, backoff=EXACT, failed=lambda cause, pause: reports.append((cause, pause)))
    assert reports == [(error, 1), (error, 2)]


async def test_the_pauses_use_the_callers_sleep() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    service = _Service(_AwayError(), _AwayError())
    assert await retry(service.call, on=_AwayError, backoff=EXACT, sleep=sleep) == "answer"
    assert slept == [1, 2]


async def _never() -> None:
    await asyncio.Event().wait()


async def _always_away() -> None:
    raise _AwayError


@virtual_time
@pytest.mark.parametrize("call", [_never, _always_away])
async def test_a_cancellation_ends_the_retries_in_a_call_and_in_a_pause(call: Callable[[], Awaitable[None]]) -> None:
    retrying = asyncio.create_task(retry(call, on=Exception, backoff=EXACT))
    await asyncio.sleep(0.5)
    await asyncio.wait_for(cancel_and_wait(retrying), 1)
    assert retrying.cancelled()


def test_the_backoff_of_a_key_grows_until_a_success() -> None:
    now = 0.0
    failures: FailureBackoff[str] = FailureBackoff(EXACT, clock=lambda: now)
    assert not failures.is_pausing("ann")
    assert [failures.failed("ann") for _ in range(5)] == [1, 2, 4, 8, 10]
    assert failures.failed("bob") == 1
    now = 5.0
    assert failures.is_pausing("ann")
    assert not failures.is_pausing("bob")
    now = 10.0
    assert not failures.is_pausing("ann")
    failures.succeeded("ann")
    failures.succeeded("nobody")
    assert failures.failed("ann") == 1


def test_failures_of_removed_keys_are_evicted() -> None:
    failures: FailureBackoff[str] = FailureBackoff(EXACT, clock=lambda: 0.0)
    for name in ("ann", "bob", "bob"):
        failures.failed(name)
    failures.retain(["bob"])
    assert not failures.is_pausing("ann")
    assert (failures.failed("ann"), failures.failed("bob")) == (1, 4)
