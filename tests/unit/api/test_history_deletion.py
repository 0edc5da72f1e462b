"""Deletion of the history: the messages are gone on every device, the figures and the agent's memory stay."""

import asyncio
import json
from typing import Any

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.agent import Reply
from tests.unit.api.world import Client, World

HISTORY = "/api/v1/chat/history"
MEMORY = "/api/v1/agent/memory"


async def _conversation(world: World, user: Client) -> str:
    handle = world.database.profiles[user.user_id].account.handle
    assert handle is not None
    return handle.conversation_id


async def test_messages_are_gone_and_usage_and_memory_stay(world: World) -> None:
    user, other = await world.user(), await world.user()
    turn = (await user.say("forget this")).json
    await other.say("keep this")
    world.memory.remember(await world.provisioner.ready(user.user_id), "likes tea")
    before = (await user.get("/api/v1/user/usage")).json["total"]
    assert (await user.delete(HISTORY)).status == 204
    assert (await user.get(HISTORY)).json["data"] == []
    assert (await user.get(f"/api/v1/chat/turns/{turn['id']}")).status == 404
    assert (await user.get("/api/v1/user/usage")).json["total"] == before
    assert [one["text"] for one in (await user.get(MEMORY)).json["archival"]["data"]] == ["likes tea"]
    assert len((await other.get(HISTORY)).json["data"]) == 2


async def test_the_agent_goes_on_in_a_conversation_that_knows_no_message(world: World) -> None:
    user = await world.user()
    await user.say("forget this")
    before = await _conversation(world, user)
    await user.delete(HISTORY)
    after = await _conversation(world, user)
    assert after != before
    assert (await user.say("hello")).json["status"] == "completed"
    assert world.gateway.sent[-1].agent.conversation_id == after
    (member,) = [one for one in world.directory.members.values() if after in one.conversations.values()]
    assert member.other_conversations == set()


async def test_a_failed_turn_is_not_sent_again_after_its_history_was_deleted(world: World) -> None:
    user = await world.user()
    world.gateway.plan(Reply(words=("Hm",), stuck=True))
    turn = (
        await user.post("/api/v1/chat/message", {"content": "forget this"}, headers={"Prefer": "respond-async"})
    ).json
    await user.post("/api/v1/chat/cancel", {"turn_id": turn["id"]})
    async with asyncio.timeout(10):
        while (await user.get(f"/api/v1/chat/turns/{turn['id']}")).json["status"] != "cancelled":
            pass
    assert (await user.delete(HISTORY)).status == 204
    await user.say("hello")
    assert [one.content for one in world.gateway.sent[-1].messages] == ["hello"]
    assert (await user.post(f"/api/v1/chat/turns/{turn['id']}/retry")).status == 404


async def test_it_is_refused_while_a_turn_runs(world: World) -> None:
    user = await world.user()
    world.gateway.plan(Reply(words=("Hm",), stuck=True))
    await user.post("/api/v1/chat/message", {"content": "one"}, headers={"Prefer": "respond-async"})
    refused = await user.delete(HISTORY)
    assert (refused.status, refused.code) == (409, "busy")
    assert len((await user.get(HISTORY)).json["data"]) == 1


async def test_a_message_that_was_deleted_cannot_be_sent_again_with_its_id(world: World) -> None:
    user = await world.user()
    await user.say("forget this", headers={"Idempotency-Key": "one"})
    await user.delete(HISTORY)
    again = await user.say("forget this", headers={"Idempotency-Key": "one"})
    assert (again.status, again.code) == (409, "id_conflict")


async def test_every_device_gets_the_event(world: World) -> None:
    user = await world.user()
    await user.say("forget this")
    async with world.http.ws_connect(
        "/api/v1/chat/stream", headers={"Authorization": f"Bearer {user.token}"}
    ) as socket:
        assert json.loads((await socket.receive()).data)["type"] == "ready"
        for _ in range(2):
            await user.delete(HISTORY)
            event: dict[str, Any] = json.loads((await asyncio.wait_for(socket.receive(), 10)).data)
            assert event["type"] == "history.deleted"
            assert event["deleted_at"].endswith("Z")
            assert event["seq"]


async def test_what_a_failing_agent_service_left_is_deleted_by_the_next_request(world: World) -> None:
    user = await world.user()
    await user.say("forget this")

    async def refuse(operation: str) -> None:
        if operation == "delete_other_conversations":
            raise PlatformError(ErrorCode.LETTA_UNAVAILABLE)

    world.directory.before = refuse
    assert (await user.delete(HISTORY)).status == 503
    world.directory.before = None
    assert (await user.say("hello")).json["status"] == "completed"
    assert (await user.delete(HISTORY)).status == 204
    (member,) = world.directory.members.values()
    assert member.other_conversations == set()


async def test_nobody_deletes_a_history_without_a_token(world: World) -> None:
    assert (await world.visitor.delete(HISTORY)).status == 401
