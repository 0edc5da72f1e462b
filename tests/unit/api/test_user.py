"""The user's profile."""

import asyncio

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.agent import Reply
from tests.unit.api.world import Client, World

PROFILE = "/api/v1/user/profile"
CHAT = "/api/v1/chat/message"


async def test_the_profile_is_the_user_with_the_agent(world: World) -> None:
    user = await world.user()
    profile = (await user.get(PROFILE)).json
    assert (profile["id"], profile["email"]) == (user.user_id, world.database.users[user.user_id])
    assert profile["agent_id"] == world.database.profiles[user.user_id].account.agent_id


async def test_the_name_is_changed_and_trimmed(world: World) -> None:
    user = await world.user()
    assert (await user.patch(PROFILE, {"name": "  Анна "})).json["name"] == "Анна"
    assert (await user.get(PROFILE)).json["name"] == "Анна"


@pytest.mark.parametrize(
    "body", [{}, {"name": None}, {"name": ""}, {"name": "x" * 101}, {"email": "other@example.com"}]
)
async def test_nothing_else_of_the_profile_can_be_changed(world: World, body: dict[str, object]) -> None:
    answer = await (await world.user()).patch(PROFILE, body)
    assert (answer.status, answer.code) == (400, "invalid_request")


def human(world: World, user: Client) -> str:
    """The user's part of the agent's memory."""
    handle = world.database.profiles[user.user_id].account.handle
    assert handle is not None
    return world.directory.agent(handle).human


async def refuse(operation: str) -> None:
    if operation == "write_name":
        raise PlatformError(ErrorCode.LETTA_UNAVAILABLE)


async def test_the_new_name_is_written_to_the_agents_memory(world: World) -> None:
    user = await world.user()
    assert (await user.patch(PROFILE, {"name": "Анна"})).status == 200
    assert human(world, user) == "User's name: Анна"


async def test_a_name_that_cannot_be_written_now_is_written_before_the_next_turn(world: World) -> None:
    user = await world.user()
    world.directory.before = refuse
    answer = await user.patch(PROFILE, {"name": "Ada"})
    assert (answer.status, answer.json["name"]) == (200, "Ada")
    assert human(world, user) == "User's name: Friend"

    world.directory.before = None
    await user.say("hello")
    assert human(world, user) == "User's name: Ada"


async def test_a_turn_runs_although_the_name_cannot_be_written(world: World) -> None:
    user = await world.user()
    world.directory.before = refuse
    await user.patch(PROFILE, {"name": "Ada"})
    assert (await user.say("hello")).status == 200


async def test_a_name_is_not_written_while_a_turn_runs(world: World) -> None:
    world.gateway.plan(Reply(words=("Hm",), stuck=True))
    user = await world.user()
    running = (await user.post(CHAT, {"content": "one"}, headers={"Prefer": "respond-async"})).json
    assert (await user.patch(PROFILE, {"name": "Ada"})).status == 200
    assert human(world, user) == "User's name: Friend"

    await user.post("/api/v1/chat/cancel", {"turn_id": running["id"]})
    await user.say("two")

    assert human(world, user) == "User's name: Ada"


async def test_a_name_that_changes_during_provisioning_is_written(world: World) -> None:
    user = await world.user(ready=False)
    made = asyncio.Event()

    async def hold(operation: str) -> None:
        if operation == "ensure_agent":
            await made.wait()

    world.directory.before = hold
    await user.get("/api/v1/auth/me")
    await user.patch(PROFILE, {"name": "Ada"})
    made.set()

    await user.say("hello")

    assert human(world, user) == "User's name: Ada"
