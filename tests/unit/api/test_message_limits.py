"""The limit of a user's messages is one for all forms of REST and for the socket."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest

from server.protocol.limits import Limits
from tests.unit.api.test_over_budget import poor_user, set_limit
from tests.unit.api.world import Client, World

MESSAGE = "/api/v1/chat/message"
WAYS = {
    "stream": {"Accept": "text/event-stream"},
    "wait": {"Accept": "application/json"},
    "async": {"Accept": "application/json", "Prefer": "respond-async"},
}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World(limits=Limits(messages_per_minute=2, unsent_turns_per_period=1)).serving() as world:
        yield world


async def on_socket(user: Client, frame: dict[str, Any]) -> dict[str, Any]:
    """The response to a frame on a new socket: its ack or error."""
    headers = {"Authorization": f"Bearer {user.token}"}
    async with user.http.ws_connect("/api/v1/chat/stream", headers=headers) as socket:
        await socket.send_json(frame)
        async for message in socket:
            answer: dict[str, Any] = orjson.loads(message.data)
            if answer["type"] in ("ack", "error"):
                return answer
    raise AssertionError("closed without an answer")


def message(number: str) -> dict[str, Any]:
    return {"type": "message", "client_message_id": number, "content": "hello"}


@pytest.mark.parametrize("way", WAYS)
async def test_too_many_messages_are_429_with_retry_after_and_nothing_stored(world: World, way: str) -> None:
    user = await world.user()
    for _ in range(2):
        await user.say("hello")
    refused = await user.post(MESSAGE, {"content": "one more"}, headers=WAYS[way])
    assert (refused.status, refused.code, refused.json["retryable"]) == (429, "rate_limited", True)
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert "turn" not in refused.json
    assert (await user.get("/api/v1/chat/history?limit=1")).json["data"][0]["role"] == "assistant"


async def test_rest_and_the_socket_share_one_limit(world: World) -> None:
    user = await world.user()
    turn = (await user.say("hello")).json
    assert (await on_socket(user, message("m2")))["type"] == "ack"
    refused = await on_socket(user, message("m3"))
    assert (refused["code"], refused["id"]) == ("rate_limited", "m3")
    assert 1 <= refused["retry_after"] <= 30
    assert (await on_socket(user, message("m2")))["duplicate"]
    assert (await user.post(f"/api/v1/chat/turns/{turn['id']}/retry")).code == "not_retryable"


async def test_retries_are_limited_by_rest_and_by_socket(world: World) -> None:
    user = await world.user()
    set_limit(world, user, "0")
    await user.get("/api/v1/user/usage")
    turn_id = (await user.say("hello")).json["turn"]["id"]
    again = await user.post(f"/api/v1/chat/turns/{turn_id}/retry")
    assert (again.status, again.json["turn"]["attempt"]) == (402, 2)
    refused = await user.post(f"/api/v1/chat/turns/{turn_id}/retry")
    assert (refused.status, refused.code) == (429, "rate_limited")
    framed = await on_socket(user, {"type": "retry", "id": "r", "turn_id": turn_id})
    assert (framed["type"], framed["code"], framed["id"]) == ("error", "rate_limited", "r")


@pytest.mark.parametrize("headers", WAYS.values(), ids=WAYS)
async def test_above_the_limit_of_unsent_turns_a_message_is_402_and_not_stored(
    headers: Mapping[str, str],
) -> None:
    async with World(limits=Limits(unsent_turns_per_period=1)).serving() as world:
        user = await poor_user(world)
        await user.say("kept")
        body = {"content": "one more", "client_message_id": "more"}
        refused = await user.post(MESSAGE, body, headers=headers)
        assert (refused.status, refused.code) == (402, "budget_exceeded")
        assert (refused.json["spent"], refused.json["limit"], "turn" in refused.json) == ("0.002", "0.002", False)
        framed = await on_socket(user, message("more"))
        assert (framed["code"], framed["limit"], framed["id"]) == ("budget_exceeded", "0.002", "more")
        assert (await user.get("/api/v1/chat/history?limit=1")).json["data"][0]["content"] == "kept"

        set_limit(world, user, "5")
        world.seconds += 10  # when LiteLLM is asked again
        sent = await user.post(MESSAGE, body | {"content": "other words", "stream": False})
        assert (sent.status, sent.json["status"]) == (200, "completed")


async def test_a_message_that_the_budget_allows_after_all_counts_once(world: World) -> None:
    user = await poor_user(world)  # who has sent one already
    set_limit(world, user, "5")
    world.seconds += 10  # when LiteLLM is asked again
    sent = await user.say("one more")
    assert (sent.status, sent.json["attempt"]) == (200, 2)
