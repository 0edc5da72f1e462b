"""An error in a check does not affect the others, and an unavailable service is reported once."""

import asyncio

import click
import pytest

from server.cli.doctor import table
from server.doctor.findings import Check, examine, fail, ok, warn
from server.ports import Diagnosis, Finding
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience import ServiceError


def check(name: str, result: Finding | Exception, *, essential: bool = False) -> Check:
    async def run() -> Finding:
        if isinstance(result, Exception):
            raise result
        return result

    return Check("letta", name, run, essential)


async def test_checks_run_in_order() -> None:
    found = await examine([check("a", ok("good")), check("b", warn("hm", "do this"))])
    assert [(one.service, one.name, one.finding.level) for one in found] == [
        ("letta", "a", "ok"),
        ("letta", "b", "warn"),
    ]


async def test_after_an_essential_failure_later_checks_are_skipped() -> None:
    found = await examine([check("a", fail("down", "start it"), essential=True), check("b", ok("good"))])
    assert [one.name for one in found] == ["a"]


async def test_after_another_failure_later_checks_run() -> None:
    found = await examine([check("a", fail("odd", "fix it")), check("b", ok("good"))])
    assert [one.name for one in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ServiceError("Letta did not answer"), "Letta did not answer"),
        (PlatformError(ErrorCode.LETTA_UNAVAILABLE), "The agent service is not reachable right now."),
        (RuntimeError("a secret, quoted"), "this could not be checked (RuntimeError)"),
        (TimeoutError(), "no answer within 30 s"),
    ],
)
async def test_an_error_is_a_finding(error: Exception, says: str) -> None:
    (found,) = await examine([check("a", error)])
    assert (found.finding.level, found.finding.message) == ("fail", says)
    assert found.finding.remedy


async def test_a_service_that_stops_answering_is_asked_nothing_more() -> None:
    async def hang() -> Finding:
        await asyncio.Event().wait()
        return ok("never")

    checks = [check("a", ok("good")), Check("letta", "b", hang), check("c", ok("good"))]
    found = await examine(checks, check_seconds=0.01)
    assert [one.name for one in found] == ["a", "b"]
    assert found[-1].finding.message.startswith("no answer within")


def test_the_table_has_the_remedy_below_the_problem() -> None:
    shown = table([Diagnosis("letta", "version", ok("fine")), Diagnosis("litellm", "alive", fail("down", "Start it."))])
    assert click.unstyle(shown).splitlines() == [
        "ok    letta version             fine",
        "fail  litellm alive             down",
        "                                → Start it.",
    ]
