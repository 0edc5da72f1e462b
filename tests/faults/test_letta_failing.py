"""Letta failing at each step of a turn: what the user sees, what is stored, and that it recovers automatically.

If Letta may have received the message, its run is searched for and recovered; the message is never sent twice.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest

from tests.faults.failing_world import FailingWorld, Resident, failing_world, unique
from tests.faults.fault_kinds import Answer, Hang, Interrupted, Reset
from tests.faults.http_faults import Fault, Rule
from tests.stack.chat_client import TIMEOUT, ChatUser, Json
from tests.stack.running_stack import RunningStack

SEND: Final = r"^/v1/conversations/[^/]+/messages"
CANCEL: Final = r"^/v1/conversations/[^/]+/cancel"
RUN: Final = r"^/v1/runs/[^/]+$"
RECORD: Final = r"^/v1/runs/[^/]+/(messages|steps)"
MEMORY: Final = r"^/v1/agents/[^/]+/"

JSON: Final = "application/json"
UNPARSABLE_EVENT: Final = b'data: {"message_type": "assistant_mess\n\n'
UNKNOWN_SHAPE: Final = b'data: {"message_type": "assistant_message", "content": "x"}\n\n'
OTHER_SHAPE: Final = b'data: {"message_type": "tool_call_message", "tool_call": "x"}\n\n'

REFUSALS: Final[dict[str, tuple[Fault, int]]] = {
    "500": (Answer(500), 5),
    "503": (Answer(503), 5),
    "429 with Retry-After": (Answer(429, retry_after=37), 37),
    "500 in JSON": (Answer(500, b'{"detail": "sk-vendor-secret"}', JSON), 5),
}
"""Letta's refusals of a message, and the expected `retry_after` in seconds."""

PASSING: Final[dict[str, Fault]] = {
    "reset": Reset(),
    "reset after it was done": Reset(forwarded=True),
    "500": Answer(500),
    "502": Answer(502),
    "429": Answer(429, retry_after=1),
    "a page of HTML": Answer(200),
    "no JSON": Answer(200, b"{", JSON),
    "another shape": Answer(200, b"{}", JSON),
    "a body cut short": Interrupted(1, "reset"),
}
"""Faults of a request that can be repeated."""
GARBAGE: Final = ("a page of HTML", "no JSON", "another shape")

READS: Final[dict[str, tuple[str, Fault]]] = {f"its state: {name}": (RUN, fault) for name, fault in PASSING.items()}
READS.update({f"its record: {name}": (RECORD, PASSING[name]) for name in ("500", *GARBAGE)})

BROKEN_STREAMS: Final[dict[str, Fault]] = {
    "reset before its first byte": Interrupted(0, "reset"),
    "reset after its run is known": Interrupted(b"run_id", "reset"),
    "reset between two words": Interrupted(b" w1", "reset"),
    "ended between two words": Interrupted(b" w1", "end"),
    "an event that is no JSON": Interrupted(b" w1", "silence", UNPARSABLE_EVENT),
    "an event of an unknown shape": Interrupted(b" w1", "silence", UNKNOWN_SHAPE),
    "an event of another shape": Interrupted(b" w1", "silence", OTHER_SHAPE),
    "bytes that are no text": Interrupted(b" w1", "end", b"data: {\xff\xfe\x00}\n\n"),
    "reset before it said how it ended": Interrupted(b" w3", "reset"),
    "reset after it said how it ended": Interrupted(b"stop_reason", "reset"),
    "reset after its tokens": Interrupted(b"usage_statistics", "reset"),
    "reset after its last event": Interrupted(b"[DONE]", "reset"),
}
REPLY: Final = "w0 w1 w2 w3"


@pytest.fixture(scope="module")
async def world(
    stack: RunningStack, server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[FailingWorld]:
    log = tmp_path_factory.mktemp("letta") / "server.log"
    async with failing_world(stack, server_env, log) as world:
        yield world


@pytest.fixture
async def ada(world: FailingWorld) -> Resident:
    return await world.resident()


# -- slow cases: all begin with the first test, on a server of their own -----------------------------------------------


async def _met(world: FailingWorld, user: ChatUser, content: str, broken: Rule) -> Json:
    """The turn of a message, as its attempt that met the fault ended. The cases of this server fail at once: if its
    breaker refuses a message, this one's attempt fails without meeting the fault, and is retried."""
    status, turn = await user.call("POST", "/chat/message", {"content": content, "stream": False})
    if status in (200, 202):
        turn = await user.ended(turn["id"])
    else:
        _assert_problem(world.presentable(turn), status, "letta_unavailable")
        turn = turn["turn"]
    while not broken.played:
        _assert_failed(turn, "letta_unavailable")
        assert (await user.call("POST", f"/chat/turns/{turn['id']}/retry"))[0] == 200
        turn = await user.ended(turn["id"])
    return dict(turn)


async def _lost_before(world: FailingWorld, fault: Fault) -> None:
    """Letta never received the message, which the server cannot know: the search for its run finds nothing."""
    ada, text = (await world.new_resident()).user, unique()
    with world.letta.breaking(fault, "POST", SEND, mentions=text) as broken:
        turn = world.presentable(await _met(world, ada, f"ECHO {text}", broken))
    assert world.letta.requests("POST", SEND, text) == 1
    _assert_failed(turn, "letta_unavailable")
    assert (await world.retry_completes(ada, turn))["message"]["content"] == text
    assert await world.model_calls(text) == 1


async def _lost_after(world: FailingWorld, fault: Fault) -> None:
    """Letta received the message, and its answer was lost: the run is found and its reply delivered."""
    ada, text = (await world.new_resident()).user, unique()
    with world.letta.breaking(fault, "POST", SEND, mentions=text) as broken:
        turn = await _met(world, ada, f"{text} SLOW 4 0.05", broken)
    assert (turn["status"], turn["message"]["content"]) == ("completed", REPLY)
    assert world.letta.requests("POST", SEND, text) == 1
    assert await world.model_calls(text) == 1
    await world.assert_works(ada)


async def _silent_memory(world: FailingWorld, fault: Fault) -> None:
    resident = await world.new_resident()
    with world.letta.breaking(fault, "GET", MEMORY, mentions=resident.member_id):
        status, problem = await resident.user.call("GET", "/agent/memory")
    _assert_problem(world.presentable(problem), status, "letta_unavailable")
    await resident.user.get("/agent/memory")


SLOW: Final[dict[str, tuple[Callable[[FailingWorld, Fault], Awaitable[None]], Fault]]] = {
    "the message is reset on its way": (_lost_before, Reset()),
    "the message meets a 502": (_lost_before, Answer(502)),
    "the message meets a 504": (_lost_before, Answer(504)),
    "the message is answered by a page of HTML": (_lost_before, Answer(200)),
    "the message is answered by an empty stream": (_lost_before, Answer(200, b"", "text/event-stream")),
    "the message is not answered": (_lost_before, Hang()),
    "the answer to the message is lost": (_lost_after, Reset(forwarded=True)),
    "the answer to the message does not come": (_lost_after, Hang(forwarded=True)),
    "the stream falls silent between two words": (_lost_after, Interrupted(b" w1", "silence")),
    "the stream falls silent after its last event": (_lost_after, Interrupted(b"[DONE]", "silence")),
    "the memory is not answered": (_silent_memory, Hang()),
}


@pytest.fixture(scope="module", autouse=True)
async def slow(
    stack: RunningStack, server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, "asyncio.Task[None]"]]:
    log = tmp_path_factory.mktemp("letta-slow") / "server.log"
    async with failing_world(stack, server_env, log) as world:
        tasks = {name: asyncio.ensure_future(case(world, fault)) for name, (case, fault) in SLOW.items()}
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


# -- the message ---------------------------------------------------------------------------------------------------


async def test_a_message_that_letta_refuses_to_connect_for_fails_retryably_and_a_retry_completes(
    world: FailingWorld, ada: Resident
) -> None:
    text = unique()
    async with world.letta.refusing(), ada.user.connect() as device:
        ack = await device.say(f"ECHO {text}")
        end = world.presentable(await device.end_of(ack["turn_id"]))
        error = _assert_failed(end["turn"], "letta_unavailable")
        assert error["retry_after"] == 5
        assert len(await world.stored_turns(ada.user, f"ECHO {text}")) == 1
    assert (await world.retry_completes(ada.user, end["turn"]))["message"]["content"] == text
    assert await world.model_calls(text) == 1


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_message_that_letta_rejects_fails_with_retry_after(
    world: FailingWorld, ada: Resident, name: str
) -> None:
    (fault, retry_after), text = REFUSALS[name], unique()
    with world.letta.breaking(fault, "POST", SEND, mentions=text):
        status, problem = await ada.user.call("POST", "/chat/message", {"content": f"ECHO {text}", "stream": False})
    _assert_problem(world.presentable(problem), status, "letta_unavailable")
    error = _assert_failed(problem["turn"], "letta_unavailable")
    assert problem["retry_after"] == error["retry_after"] == retry_after
    assert await world.model_calls(text) == 0
    assert (await world.retry_completes(ada.user, problem["turn"]))["message"]["content"] == text
    assert await world.model_calls(text) == 1
    assert world.letta.requests("POST", SEND, text) == 2


# -- the stream ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BROKEN_STREAMS)
async def test_a_reply_whose_stream_breaks_is_delivered_to_its_end(
    world: FailingWorld, ada: Resident, name: str
) -> None:
    text = unique()
    with world.letta.breaking(BROKEN_STREAMS[name], "POST", SEND, mentions=text):
        async with ada.user.connect() as device:
            ack = await device.say(f"{text} SLOW 4 0.05")
            end = await device.end_of(ack["turn_id"])
            assert end["type"] == "turn.completed", world.presentable(end)
            assert end["turn"]["message"]["content"] == device.text_of(ack["turn_id"]) == REPLY
            assert end["turn"]["usage"]["model_calls"] == 1
            assert [f["type"] for f in device.events_of(ack["turn_id"])].count("turn.completed") == 1
    assert await world.model_calls(text) == 1  # the next case is the same user's next message
    assert world.letta.requests("POST", SEND, text) == 1


@pytest.mark.parametrize("name", READS)
async def test_a_broken_reply_is_recovered_when_its_run_can_be_read_again(
    world: FailingWorld, ada: Resident, name: str
) -> None:
    (path, fault), text = READS[name], unique()
    with (
        world.letta.breaking(Interrupted(b" w1", "reset"), "POST", SEND, mentions=text),
        world.letta.breaking(fault, "GET", path, mentions=ada.member_id, times=4) as broken,
    ):
        turn = await ada.user.say(f"{text} SLOW 4 0.05")
    assert turn["message"]["content"] == REPLY
    assert broken.played == 4
    assert await world.model_calls(text) == 1


async def test_a_reply_is_delivered_to_its_end_after_letta_was_unreachable_for_a_while(
    world: FailingWorld, ada: Resident
) -> None:
    text, gate = unique(), unique()
    async with ada.user.connect() as device:
        ack = await device.say(f"{text} GATE {gate} 1 2")
        await device.wait_for(lambda _: device.text_of(ack["turn_id"]) != "")
        asked = len(world.letta.seen)
        async with world.letta.refusing():
            await world.stack.open_gate(world.http, gate)
            bob = await world.new_user()  # everything else works
            assert (await bob.get("/chat/history"))["data"] == []
        end = await device.end_of(ack["turn_id"])
    assert (end["type"], end["turn"]["message"]["content"]) == ("turn.completed", "w0 w1 w2")
    assert len(world.letta.seen) > asked
    assert await world.model_calls(text) == 1


# -- cancelling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reset", "reset after it was done", "500", *GARBAGE])
async def test_a_cancel_that_fails_once_is_repeated_and_stops_the_run(
    world: FailingWorld, ada: Resident, name: str
) -> None:
    text = unique()
    with world.letta.breaking(PASSING[name], "POST", CANCEL, mentions=ada.member_id, times=2) as broken:
        async with ada.user.connect() as device:
            ack = await device.say(f"{text} SLOW 2000 0.05")  # it is still being written when the cancel is stored
            await device.wait_for(lambda _: device.text_of(ack["turn_id"]) != "")
            await device.send(type="cancel", turn_id=ack["turn_id"])
            end = world.presentable(await device.end_of(ack["turn_id"]))
            partial = device.text_of(ack["turn_id"])
    assert broken.played > 0
    assert (end["type"], end["turn"]["message"]["content"]) == ("turn.cancelled", partial)
    await world.assert_works(ada.user)
    assert await world.model_calls(text) == 1


async def test_a_cancel_ends_the_turn_even_if_letta_rejects_it(world: FailingWorld) -> None:
    resident, text, gate = await world.new_resident(), unique(), unique()
    async with resident.user.connect() as device:
        ack = await device.say(f"{text} GATE {gate} 1 2")
        await device.wait_for(lambda _: device.text_of(ack["turn_id"]) != "")
        with world.letta.breaking(Answer(500), "POST", CANCEL, mentions=resident.member_id):
            await device.send(type="cancel", turn_id=ack["turn_id"])
            end = world.presentable(await device.end_of(ack["turn_id"]))
        assert (end["type"], end["turn"]["message"]["content"]) == ("turn.cancelled", "w0")
        again = await device.say(f"ECHO {gate} afterwards")  # the run that goes on holds the conversation
        after = await device.end_of(again["turn_id"])
        assert after["turn"]["message"]["content"] == f"{gate} afterwards"
    await world.stack.open_gate(world.http, gate)


# -- the memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, fault in PASSING.items() if fault != Reset(forwarded=True)])
async def test_the_memory_is_unavailable_while_letta_is_and_recovers(
    world: FailingWorld, ada: Resident, name: str
) -> None:
    with world.letta.breaking(PASSING[name], "GET", MEMORY, mentions=ada.member_id):
        status, problem = await ada.user.call("GET", "/agent/memory")
    _assert_problem(world.presentable(problem), status, "letta_unavailable")
    assert (await ada.user.get("/agent/status"))["status"] == "active"
    await ada.user.get("/agent/memory")


@pytest.mark.parametrize("method", ["GET", "PATCH"])
@pytest.mark.parametrize("name", ["reset after it was done", "500", "a page of HTML"])
async def test_a_new_name_is_stored_and_reaches_the_agent_when_letta_recovers(
    world: FailingWorld, method: str, name: str
) -> None:
    ada, new = await world.new_resident(), f"Ada {unique()}"  # other tests write into the memory of a shared one
    with world.letta.breaking(PASSING[name], method, MEMORY, mentions=ada.member_id):
        status, profile = await ada.user.call("PATCH", "/user/profile", {"name": new})
    assert (status, profile["name"]) == (200, new)
    await ada.user.get("/agent/memory")

    lines: list[str] = []
    async with asyncio.timeout(2 * TIMEOUT):
        while f"User's name: {new}" not in lines:  # a turn does not wait for a slow Letta: then the next one sends it
            await ada.user.say("ECHO hello")
            blocks = (await ada.user.get("/agent/memory"))["blocks"]
            [lines] = [block["value"].splitlines() for block in blocks if block["label"] == "human"]
    assert lines.count(f"User's name: {new}") == 1


# -- the slow cases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SLOW)
async def test_a_turn_ends_as_documented_when(slow: "dict[str, asyncio.Task[None]]", name: str) -> None:
    await slow[name]


def _assert_problem(problem: Json, status: int, code: str) -> None:
    assert (status, problem["code"], problem["retryable"]) == (503, code, True), problem


def _assert_failed(turn: Json, code: str) -> Json:
    assert (turn["status"], turn["error"]["code"], turn["error"]["retryable"]) == ("failed", code, True), turn
    return dict(turn["error"])
