"""REST over budget: 402 with the budget, the message is stored, and sent when the budget allows it."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal

import pytest

from server.ports import Plan
from tests.unit.api.world import Client, World

MESSAGE = "/api/v1/chat/message"


async def poor_user(world: World) -> Client:
    """A user who has spent the whole budget, a fifth of a cent, on one reply."""
    user = await world.user()
    set_limit(world, user, "0.002")
    await user.say("spend")
    await user.get("/api/v1/user/usage")  # refreshes the budget from LiteLLM
    return user


def set_limit(world: World, user: Client, limit: str) -> None:
    world.billing.customers[user.user_id].plan = Plan(Decimal(limit), "30d")


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "text/event-stream"},
        {"Accept": "application/json"},
        {"Accept": "application/json", "Prefer": "respond-async"},
    ],
    ids=["stream", "wait", "async"],
)
async def test_a_message_over_budget_is_402_in_every_form_and_stored(world: World, headers: Mapping[str, str]) -> None:
    user = await poor_user(world)
    refused = await user.post(MESSAGE, {"content": "one more"}, headers=headers)
    assert (refused.status, refused.code) == (402, "budget_exceeded")
    assert (refused.json["spent"], refused.json["limit"]) == ("0.002", "0.002")
    assert refused.json["resets_at"] is not None
    turn = refused.json["turn"]
    assert (turn["status"], turn["user_message"]["status"], turn["cost"]) == ("unsent", "unsent", None)
    assert turn["error"]["spent"] == "0.002"
    assert (await user.get(f"/api/v1/chat/turns/{turn['id']}")).json == turn
    assert len(world.gateway.sent) == 1
    newest = (await user.get("/api/v1/chat/history?limit=1")).json["data"][0]
    assert (newest["content"], newest["status"]) == ("one more", "unsent")


async def test_a_retry_is_402_until_the_budget_allows_it(world: World) -> None:
    user = await poor_user(world)
    turn = (await user.say("one more")).json["turn"]
    path = f"/api/v1/chat/turns/{turn['id']}/retry"
    again = await user.post(path)
    assert (again.status, again.code, again.json["turn"]["attempt"]) == (402, "budget_exceeded", 2)

    set_limit(world, user, "5")
    world.seconds += 60
    assert (await user.post(path)).status == 200
    ended = await world.hub.wait_for_end(user.user_id, turn["id"], 10)
    assert ended is not None
    assert ended.status == "completed"


async def test_a_budget_raised_at_litellm_applies_to_the_next_message(world: World) -> None:
    user = await poor_user(world)
    set_limit(world, user, "5")
    world.seconds += 60
    answer = await user.say("one more")
    assert (answer.status, answer.json["attempt"], answer.json["status"]) == (200, 2, "completed")


async def test_a_repeated_refused_message_is_the_same_turn(world: World) -> None:
    user = await poor_user(world)
    body = {"content": "one more", "client_message_id": "m-1", "stream": False}
    first, second = await user.post(MESSAGE, body), await user.post(MESSAGE, body)
    assert first.json["turn"] == second.json["turn"]
    assert (first.status, second.status) == (402, 402)


async def test_messages_refused_at_once_read_the_budget_once(world: World) -> None:
    user = await poor_user(world)
    world.seconds += 60
    asked: list[str] = []

    async def note(operation: str) -> None:
        asked.append(operation)

    world.billing.before = note
    answers = await asyncio.gather(*(user.say(f"message {number}") for number in range(8)))
    assert {answer.status for answer in answers} == {402}
    assert asked == ["budget"]
