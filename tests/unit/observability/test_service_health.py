"""Many operators' pages cost one run of the doctor."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from server.observability.service_health import ServiceHealth
from server.ports import Diagnosis, Finding

NOW = datetime(2026, 11, 29, tzinfo=UTC)


class Doctor:
    """Counts its runs; each waits until it is `let_go`, and finds its own number."""

    def __init__(self) -> None:
        self.runs = 0
        self.let_go = asyncio.Event()

    async def __call__(self) -> Sequence[Diagnosis]:
        self.runs += 1
        number = self.runs
        await self.let_go.wait()
        return [Diagnosis("letta", "version", Finding("ok", f"run {number}"))]


async def test_concurrent_callers_share_a_run_and_its_result_is_cached() -> None:
    doctor, seconds = Doctor(), 100.0
    health = ServiceHealth(doctor, ttl=15, clock=lambda: seconds, now=lambda: NOW)
    callers = [asyncio.create_task(health.report()) for _ in range(20)]
    await asyncio.sleep(0)
    doctor.let_go.set()
    assert {found[0].finding.message for _, found in await asyncio.gather(*callers)} == {"run 1"}
    seconds += 14.9
    assert await health.report() == (NOW, [Diagnosis("letta", "version", Finding("ok", "run 1"))])
    seconds += 0.1
    assert (await health.report())[1][0].finding.message == "run 2"
    assert doctor.runs == 2


async def test_a_caller_who_leaves_does_not_take_the_others_run_along() -> None:
    doctor = Doctor()
    health = ServiceHealth(doctor)
    first, second = asyncio.create_task(health.report()), asyncio.create_task(health.report())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    doctor.let_go.set()
    assert (await second)[1][0].finding.message == "run 2"
