"""Messages, history, cancel and retry over REST."""

import asyncio
import uuid
from typing import Any

import pytest

from server.api import chat
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.protocol.shapes import TurnError
from tests.fakes.agent import Reply, Turnstile
from tests.fakes.reads import FakeReads
from tests.unit.api.world import Client, World

MESSAGE = "/api/v1/chat/message"
HISTORY = "/api/v1/chat/history"


async def test_a_message_returns_the_ended_turn(world: World) -> None:
    user = await world.user()
    answer = await user.say("hello")
    assert answer.status == 200
    turn = answer.json
    assert turn["status"] == "completed"
    assert turn["user_message"]["content"] == "hello"
    assert turn["message"]["content"] == "You said: hello"
    assert turn["usage"]["total_tokens"] == 110
    assert turn["cost"] == "0.002"
    assert turn["cost_status"] == "estimated"


async def test_history_pages_backwards_and_forwards_without_gaps_or_repeats(world: World) -> None:
    user = await world.user()
    for word in ("one", "two", "three"):
        await user.say(word)
    newest = (await user.get(f"{HISTORY}?limit=4")).json
    older = (await user.get(HISTORY, params={"limit": "4", "before": newest["next_cursor"]})).json
    backwards = [message["content"] for message in newest["data"] + older["data"]]
    assert backwards == ["You said: three", "three", "You said: two", "two", "You said: one", "one"]
    assert (newest["has_more"], older["has_more"], older["next_cursor"]) == (True, False, None)

    newer = (await user.get(HISTORY, params={"after": newest["next_cursor"], "limit": "2"})).json
    assert [message["content"] for message in newer["data"]] == ["three", "You said: two"]
    last = (await user.get(HISTORY, params={"after": newer["next_cursor"]})).json
    assert [message["content"] for message in last["data"]] == ["You said: three"]
    assert not last["has_more"]
    assert (await user.get(HISTORY, params={"after": last["next_cursor"]})).json["data"] == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_request"),
        ("limit=101", "invalid_request"),
        ("limit=ten", "invalid_request"),
        ("limit=1&limit=2", "invalid_request"),
        ("offset=5", "invalid_request"),
        ("before=%00", "invalid_request"),
        ("before=%ff", "invalid_request"),
        ("before=cDI&after=cDI", "invalid_request"),
        ("before=1'%20or%20'1'='1", "invalid_cursor"),
        ("before=eq.1", "invalid_cursor"),
        ("before=", "invalid_cursor"),
        ("after=cDA", "invalid_cursor"),
    ],
)
async def test_history_refuses_invalid_queries(world: World, query: str, code: str) -> None:
    answer = await (await world.user()).get(f"{HISTORY}?{query}")
    assert (answer.status, answer.code) == (400, code)


async def test_the_same_message_id_never_makes_a_second_turn(world: World) -> None:
    user = await world.user()
    first = await user.say("hello", headers={"Idempotency-Key": "m-1"})
    again = await user.post(MESSAGE, {"content": "hello", "client_message_id": "m-1", "stream": False})
    assert again.json["id"] == first.json["id"]
    assert len(world.gateway.sent) == 1
    other = await user.say("something else", headers={"Idempotency-Key": "m-1"})
    assert (other.status, other.code) == (409, "id_conflict")


async def test_two_different_message_ids_in_one_request_are_refused(world: World) -> None:
    user = await world.user()
    body = {"content": "hello", "client_message_id": "m-1"}
    answer = await user.post(MESSAGE, body, headers={"Idempotency-Key": "m-2"})
    assert answer.status == 400
    assert answer.json["errors"][0]["pointer"] == "/client_message_id"


async def test_a_message_without_an_id_gets_one(world: World) -> None:
    turn = (await (await world.user()).say("hello")).json
    assert uuid.UUID(turn["client_message_id"])


async def test_respond_async_returns_the_turns_location_at_once(world: World) -> None:
    world.gateway.pace = gate = Turnstile()
    user = await world.user()
    answer = await user.post(MESSAGE, {"content": "hello"}, headers={"Prefer": "wait=5, respond-async"})
    assert answer.status == 202
    assert answer.headers["Preference-Applied"] == "respond-async"
    location = answer.headers["Location"]
    assert location == f"/api/v1/chat/turns/{answer.json['id']}"
    assert (await user.get(location)).json["status"] == "running"
    gate.open()
    await world.hub.wait_for_end(user.user_id, answer.json["id"], 10)
    assert (await user.get(location)).json["status"] == "completed"


async def test_a_turn_longer_than_the_response_timeout_is_202() -> None:
    async with World(limits=Limits(response_seconds=0)).serving() as world:
        world.gateway.pace = gate = Turnstile()
        user = await world.user()
        answer = await user.say("hello")
        assert answer.status == 202
        assert answer.headers["Location"].endswith(answer.json["id"])
        gate.open()
        assert await world.hub.wait_for_end(user.user_id, answer.json["id"], 10)


async def test_the_response_after_the_timeout_has_the_current_turn() -> None:
    async with World(limits=Limits(response_seconds=0)).serving() as world:
        world.gateway.pace = gate = Turnstile()
        user = await world.user()
        looks: list[str] = []

        async def end_it_before_the_second_look(operation: str) -> None:
            looks.extend([operation] if operation == "turn" else [])
            if len(looks) == 2:
                world.database.before = None
                gate.open()
                [turn_id] = world.database.turns
                await world.hub.wait_for_end(user.user_id, turn_id, 10)

        world.database.before = end_it_before_the_second_look
        answer = await user.say("hello")
    assert (answer.status, answer.json["status"]) == (200, "completed")


async def test_an_accepted_message_is_never_answered_by_an_error(world: World) -> None:
    world.gateway.pace = gate = Turnstile()
    user = await world.user()

    async def unavailable(operation: str) -> None:
        if operation == "turn":
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    world.database.before = unavailable
    answer = await user.say("hello")
    assert (answer.status, answer.json["user_message"]["content"]) == (202, "hello")
    assert answer.headers["Location"] == f"/api/v1/chat/turns/{answer.json['id']}"
    gate.open()


async def test_a_failed_turn_is_a_problem_that_contains_the_turn(world: World) -> None:
    failure = TurnError(ErrorCode.MODEL_ERROR, "The model stumbled.", retryable=True, retry_after=7)
    world.gateway.plan(Reply(words=("I was ",), error=failure))
    answer = await (await world.user()).say("hello")
    assert (answer.status, answer.code) == (502, "model_error")
    assert answer.json["detail"] == "The model stumbled."
    assert answer.headers["Retry-After"] == "7"
    assert answer.json["turn"]["status"] == "failed"
    assert answer.json["turn"]["message"]["content"] == "I was "
    assert answer.json["turn"]["message"]["status"] == "partial"


async def test_a_failed_turn_is_retried_as_the_same_turn(world: World) -> None:
    failure = TurnError(ErrorCode.MODEL_ERROR, "The model stumbled.", retryable=True)
    world.gateway.plan(Reply(words=(), error=failure), Reply.of("Now it works."))
    user = await world.user()
    failed = (await user.say("hello")).json["turn"]
    retried = await user.post(f"/api/v1/chat/turns/{failed['id']}/retry")
    assert (retried.status, retried.json["id"], retried.json["attempt"]) == (200, failed["id"], 2)
    ended = await world.hub.wait_for_end(user.user_id, failed["id"], 10)
    assert ended is not None
    assert ended.message is not None
    assert ended.message.content == "Now it works."
    again = await user.post(f"/api/v1/chat/turns/{failed['id']}/retry")
    assert (again.status, again.code) == (409, "not_retryable")


async def test_cancel_keeps_the_text_so_far(world: World) -> None:
    world.gateway.plan(Reply(words=("Some ", "words"), stuck=True))
    user = await world.user()
    turn = (await user.post(MESSAGE, {"content": "go on"}, headers={"Prefer": "respond-async"})).json
    await _until_said(world, user, "Some words")
    cancelled = await user.post("/api/v1/chat/cancel")
    assert (cancelled.status, cancelled.json["id"]) == (200, turn["id"])
    ended = await world.hub.wait_for_end(user.user_id, turn["id"], 10)
    assert ended is not None
    assert ended.status == "cancelled"
    assert (await user.get(HISTORY)).json["data"][0]["content"] == "Some words"


async def _until_said(world: World, user: Client, text: str) -> None:
    while True:
        running = (await user.get("/api/v1/agent/status")).json["turn"]
        if running is not None and running["text"] == text:
            return


async def test_a_request_that_waits_for_a_cancelled_turn_returns_the_turn(world: World) -> None:
    world.gateway.plan(Reply(words=("Some ", "words"), stuck=True))
    user = await world.user()
    first = (await user.post(MESSAGE, {"content": "go on"}, headers={"Prefer": "respond-async"})).json
    await _until_said(world, user, "Some words")
    await user.post("/api/v1/chat/cancel", {"turn_id": first["id"]})
    same = await user.say("go on", headers={"Idempotency-Key": first["client_message_id"]})
    assert (same.status, same.json["status"]) == (200, "cancelled")


async def test_nothing_to_cancel_is_404(world: World) -> None:
    user = await world.user()
    assert (await user.post("/api/v1/chat/cancel")).code == "not_found"
    assert (await user.post("/api/v1/chat/cancel", {"turn_id": str(uuid.uuid4())})).code == "not_found"
    assert (await user.post("/api/v1/chat/cancel", {"turn_id": "not-an-id"})).code == "invalid_request"


async def test_a_busy_session_refuses_when_asked_to(world: World) -> None:
    world.gateway.plan(Reply(words=("Hm",), stuck=True))
    user = await world.user()
    await user.post(MESSAGE, {"content": "first"}, headers={"Prefer": "respond-async"})
    answer = await user.post(MESSAGE, {"content": "second", "on_busy": "reject", "stream": False})
    assert (answer.status, answer.code) == (409, "busy")


async def test_turns_and_history_of_others_can_neither_be_read_cancelled_nor_retried(world: World) -> None:
    world.gateway.plan(Reply(words=("Hm",), stuck=True))
    ann, bob = await world.user(), await world.user()
    turn = (await ann.post(MESSAGE, {"content": "secret"}, headers={"Prefer": "respond-async"})).json
    assert (await bob.get(HISTORY)).json["data"] == []
    assert (await bob.get(f"/api/v1/chat/turns/{turn['id']}")).code == "not_found"
    assert (await bob.post(f"/api/v1/chat/turns/{turn['id']}/retry")).code == "not_found"
    assert (await bob.post("/api/v1/chat/cancel", {"turn_id": turn["id"]})).code == "not_found"
    assert (await ann.get(f"/api/v1/chat/turns/{turn['id']}")).json["status"] == "running"


@pytest.mark.parametrize("turn_id", ["1", "eq.1", "00000000-0000-0000-0000-00000000000g", "%00", "..%2f..%2fready"])
async def test_an_invalid_turn_id_is_404(world: World, turn_id: str) -> None:
    answer = await (await world.user()).get(f"/api/v1/chat/turns/{turn_id}")
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize(
    ("headers", "stream", "kind"),
    [
        ({}, None, "text/event-stream"),
        ({"Accept": "text/event-stream"}, None, "text/event-stream"),
        ({"Accept": "application/json"}, None, "application/json"),
        ({"Accept": "application/json, text/plain, */*"}, None, "application/json"),
        ({"Accept": "application/json;q=0.5, text/event-stream"}, None, "text/event-stream"),
        ({"Accept": "text/event-stream"}, False, "application/json"),
        ({"Accept": "application/json"}, True, "text/event-stream"),
    ],
)
async def test_stream_else_accept_decides_how_a_message_is_answered(
    world: World, headers: dict[str, str], stream: bool | None, kind: str
) -> None:
    body: dict[str, Any] = {"content": "hello", **({} if stream is None else {"stream": stream})}
    answer = await (await world.user()).post(MESSAGE, body, headers=headers)
    assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (200, kind)
    assert "turn.completed" in answer.raw.decode() or answer.json["status"] == "completed"


async def test_a_message_waits_for_an_agent_that_is_being_provisioned(world: World) -> None:
    user = await world.user(ready=False)
    answer = await user.say("hello")
    assert (answer.status, answer.json["status"]) == (200, "completed")


async def test_a_draining_server_accepts_no_message(world: World) -> None:
    user = await world.user()
    world.hub.draining = True
    answer = await user.say("hello")
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "draining", "1")
    assert (await user.get(HISTORY)).json["data"] == []


async def test_a_turn_over_budget_is_402_and_stored_as_unsent(world: World) -> None:
    spent = TurnError.by_rule(ErrorCode.BUDGET_EXCEEDED)
    world.gateway.plan(Reply(words=(), usage=None, error=spent))
    user = await world.user()
    answer = await user.say("hello")
    assert (answer.status, answer.code) == (402, "budget_exceeded")
    assert answer.json["turn"]["status"] == "unsent"
    assert (await user.get(f"/api/v1/chat/turns/{answer.json['turn']['id']}")).json == answer.json["turn"]


@pytest.mark.parametrize("seconds", [0, 0.01])
async def test_a_request_that_waits_at_the_end_of_a_drain_is_202(world: World, seconds: float) -> None:
    world.gateway.pace = Turnstile()
    user = await world.user()
    waiting = asyncio.create_task(user.say("hello"))
    await _running(user)
    await world.hub.drain(seconds)
    answer = await waiting
    assert (answer.status, answer.json["status"]) == (202, "running")
    assert answer.headers["Location"].endswith(answer.json["id"])


async def test_a_slow_database_at_the_end_of_a_drain_returns_the_turn_as_accepted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "_DRAINED_READ_SECONDS", 0.01)
    world.gateway.pace = Turnstile()
    user = await world.user()
    waiting = asyncio.create_task(user.say("hello"))
    await _running(user)
    monkeypatch.setattr(FakeReads, "turn", _never_answered)
    await world.hub.drain(0)
    assert (await waiting).status == 202


async def _running(user: Client) -> None:
    while (await user.get("/api/v1/agent/status")).json["turn"] is None:
        pass


async def _never_answered(*_: object) -> None:
    await asyncio.Event().wait()
