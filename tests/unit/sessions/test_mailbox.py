"""Commands of a session: one at a time, in order, to their end."""

import asyncio

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.sessions.mailbox import Mailbox
from tests.virtual_time import virtual_time


class Log:
    """Commands that take a second each, and what they did."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def command(self, name: str) -> str:
        self.lines.append(f"{name} begins")
        await asyncio.sleep(1)
        self.lines.append(f"{name} ends")
        return name


@virtual_time
async def test_commands_are_carried_out_one_after_another_in_order() -> None:
    mailbox, log = Mailbox(asyncio.create_task), Log()
    answers = await asyncio.gather(mailbox.do(lambda: log.command("a")), mailbox.do(lambda: log.command("b")))
    assert [*answers] == ["a", "b"]
    assert log.lines == ["a begins", "a ends", "b begins", "b ends"]


@virtual_time
async def test_a_command_is_carried_out_when_its_caller_was_cancelled() -> None:
    mailbox, log = Mailbox(asyncio.create_task), Log()
    caller = asyncio.ensure_future(mailbox.do(lambda: log.command("a")))
    await asyncio.sleep(0.5)
    caller.cancel()
    assert await mailbox.do(lambda: log.command("b")) == "b"
    assert log.lines[:2] == ["a begins", "a ends"]


@virtual_time
async def test_a_failing_command_fails_its_caller_alone() -> None:
    mailbox, log = Mailbox(asyncio.create_task), Log()

    async def fail() -> None:
        raise ValueError("no")

    failing = asyncio.ensure_future(mailbox.do(fail))
    assert await mailbox.do(lambda: log.command("b")) == "b"
    with pytest.raises(ValueError, match="no"):
        await failing


@virtual_time
async def test_a_mailbox_that_closes_refuses_every_caller_as_draining() -> None:
    mailbox, log = Mailbox(asyncio.create_task), Log()
    callers = [asyncio.ensure_future(mailbox.do(lambda name=name: log.command(name))) for name in "ab"]  # type: ignore[misc]
    await asyncio.sleep(0.5)
    await mailbox.aclose()
    for caller in callers:
        with pytest.raises(PlatformError) as refusal:
            await caller
        assert (refusal.value.code, refusal.value.retryable) == (ErrorCode.DRAINING, True)
    assert log.lines == ["a begins"]


@virtual_time
async def test_an_empty_mailbox_holds_no_task() -> None:
    before = asyncio.all_tasks()
    mailbox, log = Mailbox(asyncio.create_task), Log()
    await mailbox.do(lambda: log.command("a"))
    assert not mailbox.is_busy
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@virtual_time
async def test_a_command_that_had_not_begun_when_the_mailbox_closed_is_refused() -> None:
    mailbox, log = Mailbox(asyncio.create_task), Log()
    caller = asyncio.ensure_future(mailbox.do(lambda: log.command("a")))
    await asyncio.sleep(0)  # its task is made, and has not run
    await mailbox.aclose()
    async with asyncio.timeout(60):
        with pytest.raises(PlatformError) as refusal:
            await caller
    assert (refusal.value.code, log.lines, mailbox.is_busy) == (ErrorCode.DRAINING, [], False)
