"""Supabase's answers lost, late or not given: each case waits for a deadline or a lease, so that all run together."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest

from tests.faults.failing_world import FailingWorld, failing_world, unique
from tests.faults.fault_kinds import Answer, Hang, Interrupted, Reset
from tests.faults.http_faults import Fault
from tests.faults.supabase_calls import UNAVAILABLE, assert_unavailable, rpc, until_it_works
from tests.stack.chat_client import TIMEOUT
from tests.stack.running_stack import RunningStack

LOSING: Final = asyncio.Lock()
"""One case after another loses an answer. Together, and with cases that hang, their calls could fail five times in a
row, which opens the breaker for all cases."""


async def _acceptance_is_lost(world: FailingWorld, fault: Fault) -> None:
    """It was stored, and the retry finds the same turn."""
    ada, text = (await world.new_resident()).user, unique()
    body = {"content": f"ECHO {text}", "stream": False}
    async with LOSING:
        with world.supabase.breaking(fault, "POST", rpc("accept_turn"), mentions=text, times=1):
            status, turn = await ada.call("POST", "/chat/message", body, Prefer="respond-async")
    assert status == 202, turn
    turn = await ada.ended(turn["id"])
    assert (turn["message"]["content"], turn["attempt"]) == (text, 1)
    assert len(await world.stored_turns(ada, f"ECHO {text}")) == 1
    assert await world.model_calls(text) == 1


async def _acceptance_is_lost_for_good(world: FailingWorld, fault: Fault) -> None:
    """It was stored, and no answer says so: it runs once, and is found by its id."""
    ada, text = (await world.new_resident()).user, unique()
    body = {"content": f"ECHO {text}", "client_message_id": str(uuid.uuid4()), "stream": False}
    async with LOSING:
        with world.supabase.breaking(fault, "POST", rpc("accept_turn"), mentions=text):
            status, problem = await ada.call("POST", "/chat/message", body)
    assert_unavailable(world.presentable(problem), status)
    turn = await until_it_works(ada, body)
    assert (turn["message"]["content"], turn["attempt"]) == (text, 1)
    assert len(await world.stored_turns(ada, f"ECHO {text}")) == 1
    assert await world.model_calls(text) == 1


async def _acceptance_hangs(world: FailingWorld, fault: Fault) -> None:
    ada, text = (await world.new_resident()).user, unique()
    body = {"content": f"ECHO {text}", "client_message_id": str(uuid.uuid4()), "stream": False}
    with world.supabase.breaking(fault, "POST", rpc("accept_turn"), mentions=text, times=2):
        status, problem = await ada.call("POST", "/chat/message", body)
    assert_unavailable(world.presentable(problem), status)
    assert await world.stored_turns(ada, f"ECHO {text}") == []
    await until_it_works(ada, body)
    assert await world.model_calls(text) == 1


async def _run_is_not_stored(world: FailingWorld, fault: Fault) -> None:
    await _end_is_late(world, fault, "set_run")


async def _end_is_not_stored(world: FailingWorld, fault: Fault) -> None:
    await _end_is_late(world, fault, "finish_turn")


async def _end_is_late(world: FailingWorld, fault: Fault, function: str) -> None:
    ada, text = (await world.new_resident()).user, unique()
    with world.supabase.breaking(fault, "POST", rpc(function), mentions=ada.id, times=2) as broken:
        assert (await ada.say(f"ECHO {text}"))["message"]["content"] == text
    assert broken.played > 0
    assert await world.model_calls(text) == 1


async def _history_hangs(world: FailingWorld, fault: Fault) -> None:
    ada = (await world.new_resident()).user
    with world.supabase.breaking(fault, "GET", "^/rest/v1/messages", mentions=ada.id, times=2):
        status, problem = await ada.call("GET", "/chat/history")
    assert_unavailable(world.presentable(problem), status)
    async with asyncio.timeout(TIMEOUT):
        while (await ada.call("GET", "/chat/history"))[0] != 200:
            await asyncio.sleep(0.3)


async def _nothing_can_be_stored(world: FailingWorld, fault: Fault) -> None:
    """The end is not published before it is stored, and new messages are refused meanwhile."""
    ada, text, gate = (await world.new_resident()).user, unique(), unique()
    async with ada.connect() as device:
        ack = await device.say(f"{text} GATE {gate} 1 1")
        await device.wait_for(lambda _: device.text_of(ack["turn_id"]) != "")
        with (
            world.supabase.breaking(fault, "POST", rpc("finish_turn"), mentions=ada.id) as unfinished,
            world.supabase.breaking(Answer(503), "POST", rpc("accept_turn"), mentions=ada.id),
        ):
            await world.stack.open_gate(world.http, gate)
            await unfinished.happened(4)
            refused = world.presentable(await device.say("ECHO too early"))
            assert (refused["type"], refused["code"]) == ("error", UNAVAILABLE)
            assert "turn.completed" not in [frame["type"] for frame in device.frames]
        end = await device.end_of(ack["turn_id"])
    assert end["turn"]["message"]["content"] == "w0 w1"
    assert await world.model_calls(text) == 1
    await world.assert_works(ada)


async def _lease_cannot_be_renewed(world: FailingWorld, fault: Fault) -> None:
    """No turn is started, and nothing is lost."""
    ada, first, second, gate = (await world.new_resident()).user, unique(), unique(), unique()
    async with ada.connect() as device:
        running = await device.say(f"{first} GATE {gate} 1 1")
        await device.wait_for(lambda _: device.text_of(running["turn_id"]) != "")
        with world.supabase.breaking(fault, "POST", rpc("renew_sessions")) as renewal:
            await renewal.happened(3)  # twice within the deadline of a call, then again: the lease may have run out
            await world.stack.open_gate(world.http, gate)
            end = await device.end_of(running["turn_id"])
            waiting = await device.say(f"ECHO {second}")
            assert waiting["type"] == "ack"
        after = world.presentable(await device.end_of(waiting["turn_id"]))
    assert end["turn"]["message"]["content"] == "w0 w1"
    assert (after["type"], after["turn"]["message"]["content"]) == ("turn.completed", second)
    assert (await world.model_calls(first), await world.model_calls(second)) == (1, 1)


Case = tuple[Callable[[FailingWorld, Fault], Awaitable[None]], Fault]

LOST: Final[dict[str, Case]] = {
    "the answer to an acceptance is lost": (_acceptance_is_lost, Reset(forwarded=True)),
    "the answer to an acceptance is cut short": (_acceptance_is_lost, Interrupted(1, "reset")),
    "no answer to an acceptance arrives": (_acceptance_is_lost_for_good, Reset(forwarded=True)),
}
HANGING: Final[dict[str, Case]] = {
    "an acceptance hangs": (_acceptance_hangs, Hang()),
    "storing the run hangs": (_run_is_not_stored, Hang()),
    "storing the end hangs": (_end_is_not_stored, Hang()),
    "reading hangs": (_history_hangs, Hang()),
}
ALONE: Final[dict[str, Case]] = {
    "the end cannot be stored for a while": (_nothing_can_be_stored, Reset()),
    "the lease cannot be renewed": (_lease_cannot_be_renewed, Hang()),
}
"""Cases that affect all sessions of a server, and so run after the others."""

HANGING_AT_ONCE: Final = 2
"""More would open the breaker, which affects all cases."""


@pytest.fixture(scope="module")
async def cases(
    stack: RunningStack, server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, "asyncio.Task[None]"]]:
    slots = asyncio.Semaphore(HANGING_AT_ONCE)

    async def in_turn(case: Case) -> None:
        async with slots:
            await case[0](world, case[1])

    async def after(earlier: "set[asyncio.Task[None]]", case: Case) -> None:
        await asyncio.wait(earlier)
        await case[0](world, case[1])

    log = tmp_path_factory.mktemp("supabase-silent") / "server.log"
    async with failing_world(stack, server_env, log) as world:
        tasks = {name: asyncio.ensure_future(case(world, fault)) for name, (case, fault) in LOST.items()}
        tasks |= {name: asyncio.ensure_future(in_turn(case)) for name, case in HANGING.items()}
        for name, case in ALONE.items():
            tasks[name] = asyncio.ensure_future(after(set(tasks.values()), case))
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("name", [*LOST, *HANGING, *ALONE])
async def test_nothing_is_lost_or_done_twice_when(cases: "dict[str, asyncio.Task[None]]", name: str) -> None:
    await cases[name]
