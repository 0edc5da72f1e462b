"""Supabase failing at each step of a turn: nothing is stored that was refused, nothing is lost that was accepted."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Final

import pytest

from tests.faults.failing_world import FailingWorld, Resident, failing_world, unique
from tests.faults.http_faults import Answer, Fault, Hang, Interrupted, Reset
from tests.stack.chat_client import PATIENCE, ChatUser, Json
from tests.stack.running_stack import RunningStack
from tests.stack.waiting import ended

JSON: Final = "application/json"
UNAVAILABLE: Final = "supabase_unavailable"

FAULTS: Final[dict[str, Fault]] = {
    "reset": Reset(),
    "500": Answer(500),
    "500 in JSON": Answer(500, b'{"message": "sk-vendor-secret"}', JSON),
    "502": Answer(502),
    "503": Answer(503),
    "429": Answer(429, retry_after=17),
    "403 of a gateway": Answer(403),
    "a page of HTML": Answer(200),
    "no JSON": Answer(200, b"{", JSON),
    "a body cut short": Interrupted(1, "reset"),
}
"""What may happen to any request. All but the last happen before it reaches the database."""

TIMES: Final = 3
"""More often than a call is repeated at once."""

READS: Final[dict[str, tuple[str, str]]] = {
    "history": ("/chat/history", "^/rest/v1/messages"),
    "usage": ("/user/usage", "^/rest/v1/usage"),
    "profile": ("/user/profile", "^/rest/v1/user_profiles"),
    "status": ("/agent/status", "^/rest/v1/user_profiles"),
}


def _rpc(function: str) -> str:
    return f"^/rest/v1/rpc/{function}$"


@pytest.fixture(scope="module")
async def world(
    stack: RunningStack, faults_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[FailingWorld]:
    log = tmp_path_factory.mktemp("supabase") / "server.log"
    async with failing_world(stack, faults_env, log) as world:
        yield world


@pytest.fixture
async def ada(world: FailingWorld) -> Resident:
    return await world.resident()


# -- those that take their time: all begin with the first test, on a server of their own -------------------------------


async def _acceptance_is_lost(world: FailingWorld, fault: Fault) -> None:
    """It was stored, and is asked for again: the same turn."""
    ada, text = (await world.new_resident()).user, unique()
    with world.supabase.breaking(fault, "POST", _rpc("accept_turn"), mentions=text, times=1):
        turn = await ada.say(f"ECHO {text}")
    assert (turn["message"]["content"], turn["attempt"]) == (text, 1)
    assert len(await world.stored_turns(ada, f"ECHO {text}")) == 1
    assert await world.model_calls(text) == 1


async def _acceptance_is_lost_for_good(world: FailingWorld, fault: Fault) -> None:
    """It was stored and nobody could say so: it runs once all the same, and is found by its id."""
    ada, text = (await world.new_resident()).user, unique()
    body = {"content": f"ECHO {text}", "client_message_id": str(uuid.uuid4()), "stream": False}
    with world.supabase.breaking(fault, "POST", _rpc("accept_turn"), mentions=text):
        status, problem = await ada.call("POST", "/chat/message", body)
    _assert_unavailable(world.presentable(problem), status)
    turn = await _until_it_works(ada, body)
    assert (turn["message"]["content"], turn["attempt"]) == (text, 1)
    assert len(await world.stored_turns(ada, f"ECHO {text}")) == 1
    assert await world.model_calls(text) == 1


async def _acceptance_hangs(world: FailingWorld, fault: Fault) -> None:
    ada, text = (await world.new_resident()).user, unique()
    body = {"content": f"ECHO {text}", "client_message_id": str(uuid.uuid4()), "stream": False}
    with world.supabase.breaking(fault, "POST", _rpc("accept_turn"), mentions=text, times=2):
        status, problem = await ada.call("POST", "/chat/message", body)
    _assert_unavailable(world.presentable(problem), status)
    assert await world.stored_turns(ada, f"ECHO {text}") == []
    await _until_it_works(ada, body)
    assert await world.model_calls(text) == 1


async def _run_is_not_stored(world: FailingWorld, fault: Fault) -> None:
    await _end_is_late(world, fault, "set_run")


async def _end_is_not_stored(world: FailingWorld, fault: Fault) -> None:
    await _end_is_late(world, fault, "finish_turn")


async def _end_is_late(world: FailingWorld, fault: Fault, function: str) -> None:
    ada, text = (await world.new_resident()).user, unique()
    with world.supabase.breaking(fault, "POST", _rpc(function), mentions=ada.id, times=2) as broken:
        assert (await ada.say(f"ECHO {text}"))["message"]["content"] == text
    assert broken.played > 0
    assert await world.model_calls(text) == 1


async def _history_hangs(world: FailingWorld, fault: Fault) -> None:
    ada = (await world.new_resident()).user
    with world.supabase.breaking(fault, "GET", "^/rest/v1/messages", mentions=ada.id, times=2):
        status, problem = await ada.call("GET", "/chat/history")
    _assert_unavailable(world.presentable(problem), status)
    async with asyncio.timeout(PATIENCE):
        while (await ada.call("GET", "/chat/history"))[0] != 200:
            await asyncio.sleep(0.3)


async def _nothing_can_be_stored(world: FailingWorld, fault: Fault) -> None:
    """Nothing is told before it is stored, and new messages are refused meanwhile."""
    ada, text, gate = (await world.new_resident()).user, unique(), unique()
    async with ada.connect() as device:
        ack = await device.say(f"{text} GATE {gate} 1 1")
        await device.wait_for(lambda _: device.text_of(ack["turn_id"]) != "")
        with (
            world.supabase.breaking(fault, "POST", _rpc("finish_turn"), mentions=ada.id) as unfinished,
            world.supabase.breaking(Answer(503), "POST", _rpc("accept_turn"), mentions=ada.id),
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
    """Nothing new is started, and nothing is lost."""
    ada, first, second, gate = (await world.new_resident()).user, unique(), unique(), unique()
    async with ada.connect() as device:
        running = await device.say(f"{first} GATE {gate} 1 1")
        await device.wait_for(lambda _: device.text_of(running["turn_id"]) != "")
        with world.supabase.breaking(fault, "POST", _rpc("renew_sessions")) as renewal:
            await renewal.happened(3)  # twice within the deadline of a call, then again: the lease may have run out
            await world.stack.open_gate(world.http, gate)
            end = await device.end_of(running["turn_id"])
            waiting = await device.say(f"ECHO {second}")
            assert waiting["type"] == "ack"
        after = world.presentable(await device.end_of(waiting["turn_id"]))
    assert end["turn"]["message"]["content"] == "w0 w1"
    assert (after["type"], after["turn"]["message"]["content"]) == ("turn.completed", second)
    assert (await world.model_calls(first), await world.model_calls(second)) == (1, 1)


SLOW: Final[dict[str, tuple[Callable[[FailingWorld, Fault], Awaitable[None]], Fault]]] = {
    "the answer to an acceptance is lost": (_acceptance_is_lost, Reset(forwarded=True)),
    "the answer to an acceptance is cut short": (_acceptance_is_lost, Interrupted(1, "reset")),
    "no answer to an acceptance arrives": (_acceptance_is_lost_for_good, Reset(forwarded=True)),
    "an acceptance hangs": (_acceptance_hangs, Hang()),
    "storing the run hangs": (_run_is_not_stored, Hang()),
    "storing the end hangs": (_end_is_not_stored, Hang()),
    "reading hangs": (_history_hangs, Hang()),
    "the end cannot be stored for a while": (_nothing_can_be_stored, Reset()),
}
ALONE: Final = "the lease cannot be renewed"
"""What happens to all sessions of a server, and so not beside the others."""


@pytest.fixture(scope="module", autouse=True)
async def slow(
    stack: RunningStack, faults_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, "asyncio.Task[None]"]]:
    async def alone(world: FailingWorld) -> None:
        await asyncio.wait(others)
        await _lease_cannot_be_renewed(world, Hang())

    log = tmp_path_factory.mktemp("supabase-slow") / "server.log"
    async with failing_world(stack, faults_env, log) as world:
        tasks = {name: asyncio.ensure_future(case(world, fault)) for name, (case, fault) in SLOW.items()}
        others = set(tasks.values())
        tasks[ALONE] = asyncio.ensure_future(alone(world))
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


# -- accepting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "a body cut short"])
async def test_a_message_that_cannot_be_stored_is_refused_and_its_id_is_free(
    world: FailingWorld, ada: Resident, name: str
) -> None:
    text, message_id = unique(), str(uuid.uuid4())
    body = {"content": f"ECHO {text}", "client_message_id": message_id, "stream": False}
    with world.supabase.breaking(FAULTS[name], "POST", _rpc("accept_turn"), mentions=text):
        status, problem = await ada.user.call("POST", "/chat/message", body)
    _assert_unavailable(world.presentable(problem), status)
    assert problem["retry_after"] == (17 if name == "429" else 5)
    assert await world.stored_turns(ada.user, f"ECHO {text}") == []
    await _until_it_works(ada.user, body)
    (stored,) = await world.stored_turns(ada.user, f"ECHO {text}")
    assert (stored["status"], stored["attempt"]) == ("completed", 1)
    assert await world.model_calls(text) == 1


async def test_a_device_gets_the_refusal_as_a_frame_and_sends_again_on_the_same_socket(
    world: FailingWorld, ada: Resident
) -> None:
    text, message_id = unique(), str(uuid.uuid4())
    async with ada.user.connect() as device:
        async with world.supabase.refusing():
            refused = world.presentable(await device.say(f"ECHO {text}", client_message_id=message_id))
        assert (refused["type"], refused["code"], refused["retryable"]) == ("error", UNAVAILABLE, True)
        assert refused["retry_after"] > 0
        device.frames.clear()
        while (answer := await device.say(f"ECHO {text}", client_message_id=message_id))["type"] == "error":
            device.frames.clear()
            await asyncio.sleep(0.3)
        assert answer["duplicate"] is False
        assert (await device.end_of(answer["turn_id"]))["turn"]["message"]["content"] == text
    assert await world.model_calls(text) == 1


# -- a turn that runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["set_run", "finish_turn"])
@pytest.mark.parametrize("name", [*FAULTS, "lost"])
async def test_a_reply_is_told_once_when_it_could_be_stored_at_last(
    world: FailingWorld, ada: Resident, name: str, function: str
) -> None:
    text = unique()
    fault = FAULTS.get(name, Reset(forwarded=True))
    with world.supabase.breaking(fault, "POST", _rpc(function), mentions=ada.user.id, times=TIMES) as broken:
        async with ada.user.connect() as device:
            ack = await device.say(f"{text} SLOW 4 0.05")
            end = world.presentable(await device.end_of(ack["turn_id"]))
            assert [f["type"] for f in device.events_of(ack["turn_id"])].count("turn.completed") == 1
    assert broken.played > 0
    assert end["turn"]["message"]["content"] == "w0 w1 w2 w3"
    (stored,) = await world.stored_turns(ada.user, f"{text} SLOW 4 0.05")
    assert (stored["status"], stored["run_id"] is not None) == ("completed", True)
    assert await world.model_calls(text) == 1


@pytest.mark.parametrize("name", [*FAULTS, "lost"])
async def test_a_waiting_message_is_started_when_it_can_be(world: FailingWorld, ada: Resident, name: str) -> None:
    first, second, gate = unique(), unique(), unique()
    fault = FAULTS.get(name, Reset(forwarded=True))
    with world.supabase.breaking(fault, "POST", _rpc("start_turn"), mentions=ada.user.id, times=TIMES) as broken:
        async with ada.user.connect() as device:
            running = await device.say(f"{first} GATE {gate} 1 1")
            waiting = await device.say(f"ECHO {second}")
            await world.stack.open_gate(world.http, gate)
            assert (await device.end_of(running["turn_id"]))["type"] == "turn.completed"
            end = world.presentable(await device.end_of(waiting["turn_id"]))
    assert broken.played > 0
    assert (end["type"], end["turn"]["message"]["content"]) == ("turn.completed", second)
    assert await world.model_calls(second) == 1


@pytest.mark.parametrize("name", FAULTS)
async def test_a_cancel_that_cannot_be_stored_is_refused_and_can_be_asked_again(
    world: FailingWorld, ada: Resident, name: str
) -> None:
    text = unique()
    async with ada.user.connect() as device:
        ack = await device.say(f"{text} SLOW 200 0.05")
        await device.wait_for(lambda _: device.text_of(ack["turn_id"]) != "")
        with world.supabase.breaking(FAULTS[name], "POST", _rpc("request_cancel"), mentions=ada.user.id):
            status, problem = await ada.user.call("POST", "/chat/cancel", {"turn_id": ack["turn_id"]})
        _assert_unavailable(world.presentable(problem), status)
        async with asyncio.timeout(PATIENCE):
            while (await ada.user.call("POST", "/chat/cancel", {"turn_id": ack["turn_id"]}))[0] != 200:
                await asyncio.sleep(0.3)
        assert (await device.end_of(ack["turn_id"]))["type"] == "turn.cancelled"
    await world.assert_works(ada.user)


# -- connecting and reading ------------------------------------------------------------------------------------------


async def test_a_socket_that_cannot_learn_what_is_open_says_so_and_the_next_one_opens(world: FailingWorld) -> None:
    ada = (await world.new_resident()).user
    with world.supabase.breaking(Answer(503), "POST", _rpc("open_turns"), mentions=ada.id):
        async with world.http.ws_connect(f"{ada.url}/api/v1/chat/stream", headers=ada.headers) as socket:
            error = world.presentable(await socket.receive_json())
            assert (error["type"], error["code"], error["retryable"]) == ("error", UNAVAILABLE, True)
            await socket.receive()
            assert socket.close_code == 1013
    await world.assert_works(ada)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("name", FAULTS)
async def test_what_cannot_be_read_now_can_be_read_later(
    world: FailingWorld, ada: Resident, name: str, read: str
) -> None:
    path, table = READS[read]
    with world.supabase.breaking(FAULTS[name], "GET", table, mentions=ada.user.id):
        status, problem = await ada.user.call("GET", path)
    _assert_unavailable(world.presentable(problem), status)
    async with asyncio.timeout(PATIENCE):
        while (await ada.user.call("GET", path))[0] != 200:
            await asyncio.sleep(0.3)


async def test_a_server_that_cannot_learn_the_projects_keys_heals_without_a_restart(
    world: FailingWorld,
    ada: Resident,
    stack: RunningStack,
    faults_env: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    log = tmp_path_factory.mktemp("keys") / "server.log"
    async with failing_world(stack, faults_env, log) as fresh:
        user = replace(ada.user, url=fresh.server.url)
        for fault in (*FAULTS.values(), Hang()):
            with fresh.supabase.breaking(fault, "GET", "jwks.json"):
                answers = await asyncio.gather(*(user.call("GET", "/auth/me") for _ in range(6)))
            for status, problem in answers:
                _assert_unavailable(fresh.presentable(problem), status)
        async with asyncio.timeout(PATIENCE):
            while (await user.call("GET", "/auth/me"))[0] != 200:
                await asyncio.sleep(0.3)
        with fresh.supabase.breaking(Reset(), "GET", "jwks.json"):
            await user.get("/auth/me")  # keys that are known outlive an outage


@pytest.mark.parametrize("name", [*SLOW, ALONE])
async def test_nothing_is_lost_or_done_twice_when(slow: "dict[str, asyncio.Task[None]]", name: str) -> None:
    await slow[name]


async def _until_it_works(ada: ChatUser, body: Json) -> Json:
    """Send until it is accepted, as a client does that heeds retry_after. The turn, completed."""
    async with asyncio.timeout(PATIENCE):
        while True:
            status, turn = await ada.call("POST", "/chat/message", body)
            if status in (200, 202):
                break
            _assert_unavailable(turn, status)
            await asyncio.sleep(0.3)
    turn = await ended(ada, turn["id"])
    assert turn["status"] == "completed", turn
    return turn


def _assert_unavailable(problem: Json, status: int) -> None:
    assert (status, problem["code"], problem["retryable"]) == (503, UNAVAILABLE, True), problem
    assert problem["retry_after"] > 0
