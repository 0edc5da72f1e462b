"""Deletion of one's own account: who may ask for it, and what becomes of connections, turns and tokens."""

import asyncio
import json
from datetime import timedelta

import pytest
from aiohttp import WSMsgType
from pydantic import SecretStr

from server.auth.gate import AccountGate
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from tests.fakes.agent import Reply
from tests.unit.api.test_who_may_come import with_claims
from tests.unit.api.world import PASSWORD, Client, World

USER = "/api/v1/user"
HISTORY = "/api/v1/chat/history"


async def _registered(world: World, email: str = "ada@example.com") -> Client:
    """A user with a password."""
    answer = await world.visitor.post("/api/v1/auth/register", {"email": email, "password": PASSWORD})
    user_id = answer.json["user"]["id"]
    await world.provisioner.ready(user_id)
    return Client(world.http, answer.json["access_token"], user_id)


def _nothing_is_left(world: World, user: Client) -> bool:
    return (
        user.user_id not in world.database.profiles
        and user.user_id not in world.billing.customers
        and user.user_id not in world.directory.organizations.values()
    )


async def test_a_recent_sign_in_is_enough(world: World) -> None:
    user = await _registered(world)
    world.passed += timedelta(minutes=9)
    assert (await user.delete(USER)).status == 204
    assert _nothing_is_left(world, user)


async def test_an_older_sign_in_needs_the_password(world: World) -> None:
    user = await _registered(world)
    world.passed += timedelta(minutes=11)
    for body in (None, {}, {"current_password": "a wrong password"}):
        refused = await user.delete(USER, body)
        assert (refused.status, refused.code) == (403, "reauthentication_required")
    assert not _nothing_is_left(world, user)
    assert (await user.delete(USER, {"current_password": PASSWORD})).status == 204
    assert _nothing_is_left(world, user)


async def test_a_refresh_is_no_sign_in(world: World) -> None:
    user = await _registered(world)
    pair = world.identity.issue(user.user_id)
    world.passed += timedelta(minutes=11)
    body = {"refresh_token": pair.refresh_token.get_secret_value()}
    refreshed = (await world.visitor.post("/api/v1/auth/refresh", body)).json["access_token"]
    refused = await Client(world.http, refreshed, user.user_id).delete(USER)
    assert (refused.status, refused.code) == (403, "reauthentication_required")


async def test_the_password_of_another_account_does_not_delete_ones_own(world: World) -> None:
    ada = await _registered(world)
    world.passed += timedelta(minutes=11)
    world.identity.passwords[ada.user_id] = SecretStr("another password")
    bob_id = world.database.sign_up()
    world.database.users[bob_id] = "ada@example.com"  # the address that the token of ada names
    world.identity.passwords[bob_id] = SecretStr(PASSWORD)
    refused = await ada.delete(USER, {"current_password": PASSWORD})
    assert (refused.status, refused.code) == (403, "reauthentication_required")


async def test_wrong_passwords_are_limited_as_at_the_sign_in() -> None:
    world = World(sign_ins_per_minute=2)
    async with world.serving():
        user = await _registered(world)
        codes = [(await user.delete(USER, {"current_password": "a wrong password"})).code for _ in range(5)]
    # Two of all addresses together, and two of the address that the user signed in from.
    assert codes == ["reauthentication_required"] * 4 + ["rate_limited"]


async def test_nobody_deletes_without_a_token(world: World) -> None:
    refused = await world.visitor.delete(USER, {"current_password": PASSWORD})
    assert (refused.status, refused.code) == (401, "unauthorized")


async def test_the_tokens_of_a_deleted_user_open_nothing(world: World) -> None:
    user = await _registered(world)
    assert (await user.delete(USER)).status == 204
    world.seconds += 60
    for path in ("/api/v1/user/profile", "/api/v1/agent/status", HISTORY, "/api/v1/user/export"):
        refused = await user.get(path)
        assert (refused.status, refused.code) == (401, "unauthorized"), path
    assert (await user.say("hello")).status == 401
    assert (await user.delete(USER)).status == 401
    assert user.user_id not in world.database.profiles


async def test_the_same_address_registers_again_at_once(world: World) -> None:
    first = await _registered(world)
    assert (await first.say("hello")).status == 200
    assert (await first.delete(USER)).status == 204
    again = await _registered(world)
    assert again.user_id != first.user_id
    assert (await again.get(HISTORY)).json["data"] == []
    assert (await again.say("hello again")).json["status"] == "completed"


async def test_a_running_turn_stops_and_the_connections_close(world: World) -> None:
    user = await _registered(world)
    world.gateway.plan(Reply(words=("Hm",), stuck=True))
    async with world.http.ws_connect(
        "/api/v1/chat/stream", headers={"Authorization": f"Bearer {user.token}"}
    ) as socket:
        assert json.loads((await socket.receive()).data)["type"] == "ready"
        await user.post("/api/v1/chat/message", {"content": "one"}, headers={"Prefer": "respond-async"})
        assert (await user.delete(USER)).status == 204
        async with asyncio.timeout(10):
            while (last := await socket.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
                pass
        assert (last.type, last.data) == (WSMsgType.CLOSE, 4503)
    assert _nothing_is_left(world, user)


async def test_what_is_not_deleted_at_once_goes_on_in_the_background(world: World) -> None:
    user = await _registered(world)

    async def refuse(operation: str) -> None:
        if operation == "delete_everything":
            raise PlatformError(ErrorCode.LETTA_UNAVAILABLE)

    world.directory.before = refuse
    answer = await user.delete(USER)
    assert (answer.status, answer.json) == (202, {"status": "deleting"})
    assert world.database.profiles[user.user_id].account.agent_status is AgentStatus.DELETING
    world.seconds += 60
    refused = await user.get("/api/v1/user/profile")
    assert (refused.status, refused.code, refused.json["detail"]) == (
        403, "account_blocked", "This account is being deleted.",
    )  # fmt: skip
    world.directory.before = None
    assert await world.deletion.round()
    assert _nothing_is_left(world, user)


@pytest.mark.parametrize(
    "body", [{"current_password": ""}, {"current_password": 5}, {"confirm": True}, {"password": "x"}]
)
async def test_an_invalid_body_deletes_nothing(world: World, body: dict[str, object]) -> None:
    user = await _registered(world)
    assert (await user.delete(USER, body)).code == "invalid_request"
    assert not _nothing_is_left(world, user)


async def test_the_last_admin_cannot_be_deleted(world: World) -> None:
    user = await _registered(world)
    world.database.admins.add(user.user_id)
    refused = await user.delete(USER)
    assert (refused.status, refused.code) == (409, "last_admin")
    world.database.admins.add((await _registered(world, "bob@example.com")).user_id)
    assert (await user.delete(USER)).status == 204


async def test_an_anonymous_user_who_has_no_password_is_deleted_by_the_token_alone() -> None:
    async with World(gate=AccountGate(anonymous_allowed=True)).serving() as world:
        user = await world.user()
        world.passed += timedelta(minutes=11)
        anonymous = with_claims(world, user.user_id, is_anonymous=True)
        world.passed += timedelta(minutes=11)
        assert (await anonymous.delete(USER)).status == 204
        assert _nothing_is_left(world, user)


async def test_an_api_key_does_not_delete_its_user(world: World) -> None:
    user = await _registered(world)
    key = (await user.post("/api/v1/user/api-keys", {"name": "script", "scopes": ["read", "chat", "account"]})).json
    refused = await Client(world.http, key["key"], user.user_id).delete(USER, {"current_password": PASSWORD})
    assert (refused.status, refused.code) == (403, "forbidden")
    assert not _nothing_is_left(world, user)
