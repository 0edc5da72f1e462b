"""API keys over REST: made by people, used by scripts, ended by either."""

from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from server.api import router
from server.http.routes import Route
from server.ports import ALL_SCOPES
from tests.unit.api.world import Client, World

KEYS = "/api/v1/user/api-keys"

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def make(client: Client, *scopes: str, **fields: Any) -> Any:
    """A key of this user, as the answer has it."""
    answer = await client.post(KEYS, {"name": "script", "scopes": list(scopes), **fields})
    assert answer.status == 201, answer.raw
    return answer.json


def with_key(world: World, key: str) -> Client:
    return Client(world.http, key)


async def test_a_key_is_shown_once_and_works_like_a_token(world: World) -> None:
    ann = await world.user()
    made = await make(ann, "read", "chat", expires_at="2999-01-01T00:00:00Z")
    script = with_key(world, made["key"])

    assert (await script.get("/api/v1/auth/me")).json["id"] == ann.user_id
    assert (await script.say("Hello!")).status == 200
    assert len((await script.get("/api/v1/chat/history")).json["data"]) == 2

    listed = await ann.get(KEYS)
    [shown] = listed.json["data"]
    assert made["key"].startswith(f"{shown['prefix']}_")
    assert made["key"].removeprefix(shown["prefix"] + "_").encode() not in listed.raw
    assert (shown["name"], shown["scopes"], shown["expires_at"]) == ("script", ["chat", "read"], "2999-01-01T00:00:00Z")
    assert shown["last_used_at"] is not None
    assert {name: made[name] for name in shown} == {**shown, "last_used_at": None}


@pytest.mark.parametrize(
    "route", [r for r in router.ROUTES if r.access != "public"], ids=lambda r: f"{r.method} {r.path}"
)
async def test_a_key_opens_the_endpoints_of_its_scopes_and_no_others(world: World, route: Route) -> None:
    ann = await world.user()
    without = ALL_SCOPES - {route.access}
    key = (await make(ann, *without))["key"]
    path = route.path
    for name in route.path_parameters:
        path = path.replace(f"{{{name}}}", "5e1f7d4a-7c57-4a1e-9f0e-0a4f3f8f6c10")
    if route.credential != "socket":
        answer = await with_key(world, key).request(route.method, path)
        assert (answer.status, answer.code) == (403, "forbidden")
        return
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await world.http.ws_connect(path, headers={"Authorization": f"Bearer {key}"})
    assert refused.value.status == 403


async def test_a_revoked_key_is_refused_at_once(world: World) -> None:
    ann = await world.user()
    made = await make(ann, "read")
    script = with_key(world, made["key"])
    assert (await script.get("/api/v1/auth/me")).status == 200
    assert (await ann.delete(f"{KEYS}/{made['id']}")).status == 204
    refused = await script.get("/api/v1/auth/me")
    assert (refused.status, refused.code) == (401, "unauthorized")
    assert (await ann.delete(f"{KEYS}/{made['id']}")).code == "not_found"
    assert (await ann.get(KEYS)).json["data"] == []


async def test_a_socket_is_closed_when_its_key_is_revoked(world: World) -> None:
    """At once: nothing checks connections periodically here."""
    ann = await world.user()
    made = await make(ann, "chat")
    headers = {"Authorization": f"Bearer {made['key']}"}
    async with world.http.ws_connect("/api/v1/chat/stream", headers=headers) as socket:
        assert (await socket.receive_json())["type"] == "ready"
        assert (await ann.delete(f"{KEYS}/{made['id']}")).status == 204
        closed = await socket.receive(timeout=10)
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 4502)


async def test_a_key_of_another_user_is_neither_listed_nor_revoked(world: World) -> None:
    ann, ben = await world.user(), await world.user()
    made = await make(ann, "read")
    assert (await ben.get(KEYS)).json["data"] == []
    assert (await ben.delete(f"{KEYS}/{made['id']}")).code == "not_found"
    assert (await with_key(world, made["key"]).get("/api/v1/auth/me")).status == 200


async def test_a_user_has_at_most_ten_keys(world: World) -> None:
    ann = await world.user()
    for _ in range(10):
        await make(ann, "read")
    eleventh = await ann.post(KEYS, {"name": "script", "scopes": ["read"]})
    assert (eleventh.status, eleventh.code) == (409, "too_many_keys")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "script", "scopes": []},
        {"name": "script", "scopes": ["admin"]},
        {"name": "script", "scopes": "read"},
        {"name": " ", "scopes": ["read"]},
        {"name": "x" * 101, "scopes": ["read"]},
        {"scopes": ["read"]},
        {"name": "script", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "script", "scopes": ["read"], "expires_at": "2999-01-01T00:00:00"},
        {"name": "script", "scopes": ["read"], "expires_at": "2999-13-01T00:00:00Z"},
        {"name": "script", "scopes": ["read"], "expires_at": "9999-12-31T23:59:59-23:59"},
        {"name": "script", "scopes": ["read"], "expires_at": 32472144000},
        {"name": "script", "scopes": ["read"], "user_id": "5e1f7d4a-7c57-4a1e-9f0e-0a4f3f8f6c10"},
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(world: World, body: dict[str, Any]) -> None:
    ann = await world.user()
    answer = await ann.post(KEYS, body)
    assert (answer.status, answer.code) == (400, "invalid_request")


async def test_a_key_makes_another_only_with_the_account_scope_and_none_that_exceeds_it(world: World) -> None:
    ann = await world.user()
    reader = with_key(world, (await make(ann, "read", "chat"))["key"])
    assert (await reader.post(KEYS, {"name": "more", "scopes": ["read"]})).code == "forbidden"
    manager = with_key(world, (await make(ann, "read", "account"))["key"])
    assert (await manager.post(KEYS, {"name": "more", "scopes": ["chat"]})).code == "forbidden"
    assert (await manager.post(KEYS, {"name": "more", "scopes": ["read"]})).status == 201


async def test_a_key_cannot_sign_its_user_out(world: World) -> None:
    ann = await world.user()
    key = with_key(world, (await make(ann, "account"))["key"])
    assert (await key.post("/api/v1/auth/logout", {"scope": "global"})).code == "forbidden"
    assert (await ann.get("/api/v1/auth/me")).status == 200


async def test_a_key_survives_the_sign_out_of_its_user(world: World) -> None:
    ann = await world.user()
    key = with_key(world, (await make(ann, "read"))["key"])
    assert (await ann.post("/api/v1/auth/logout", {"scope": "global"})).status == 204
    assert (await key.get("/api/v1/auth/me")).status == 200


async def test_an_expired_key_is_refused_and_listed_until_the_next_is_made(world: World) -> None:
    ann = await world.user()
    expires_at = (world.now() + timedelta(minutes=30)).isoformat()
    made = await make(ann, "read", expires_at=expires_at)
    world.passed = timedelta(minutes=31)
    assert (await with_key(world, made["key"]).get("/api/v1/auth/me")).code == "unauthorized"
    assert len((await ann.get(KEYS)).json["data"]) == 1
    await make(ann, "read")
    assert len((await ann.get(KEYS)).json["data"]) == 1


async def test_a_key_is_limited_and_its_user_is_not() -> None:
    async with World(api_key_requests_per_minute=2).serving() as world:
        ann = await world.user()
        key = with_key(world, (await make(ann, "read"))["key"])
        answers = [await key.get("/api/v1/auth/me") for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert (await ann.get("/api/v1/auth/me")).status == 200


async def test_wrong_keys_are_limited_by_address_at_every_door_and_people_are_not() -> None:
    async with World(auth_per_minute=5).serving() as world:
        ann = await world.user()
        known = (await make(ann, "chat"))["key"]
        wrong = known[:-1] + ("0" if known[-1] != "0" else "1")
        stranger = with_key(world, wrong)
        async with world.http.ws_connect("/api/v1/chat/stream", headers={"Authorization": f"Bearer {known}"}) as device:
            answers = [await stranger.get("/api/v1/auth/me") for _ in range(2)]
            assert [answer.status for answer in answers] == [401, 401]
            for protocols in (("chat.v1", f"bearer.{wrong}"), ("chat.v1",)):
                async with world.http.ws_connect("/api/v1/chat/stream", protocols=protocols) as socket:
                    if len(protocols) == 1:
                        await socket.send_json({"type": "auth", "token": wrong})
                    assert (await socket.receive_json())["code"] == "unauthorized"
            await device.receive_json()
            await device.send_json({"type": "auth", "id": "a", "token": wrong})
            assert (await device.receive_json())["code"] == "unauthorized"

        refused = await stranger.get("/api/v1/auth/me")
        assert (refused.status, refused.json["rate_limit"]) == (429, "key_guesses")
        assert (await with_key(world, known).get("/api/v1/chat/history")).status in (200, 403)
        assert (await ann.get("/api/v1/auth/me")).status == 200


@pytest.mark.parametrize("way", ["header", "subprotocol", "ticket", "first frame"])
async def test_a_socket_counts_as_a_request_of_its_user_however_it_is_authenticated(way: str) -> None:
    async with World(requests_per_minute=2).serving() as world:
        ann = await world.user()
        path = "/api/v1/chat/stream"
        ticket = (await ann.post("/api/v1/chat/ticket")).json["ticket"]
        assert (await ann.get("/api/v1/auth/me")).status == 200
        if way == "header":  # no browser sends it, so the client can read the answer
            refused = await ann.request("GET", path, headers=HANDSHAKE)
            assert (refused.status, refused.json["rate_limit"], refused.headers["Retry-After"]) == (
                429,
                "requests",
                "30",
            )
            return
        protocols = ("chat.v1", f"bearer.{ann.token}") if way == "subprotocol" else ()
        path += f"?ticket={ticket}" if way == "ticket" else ""
        async with world.http.ws_connect(path, protocols=protocols) as socket:
            if way == "first frame":
                await socket.send_json({"type": "auth", "token": ann.token})
            error = await socket.receive_json(timeout=10)
            assert (error["code"], error["rate_limit"], error["retry_after"]) == ("rate_limited", "requests", 30)
            await socket.receive(timeout=10)
        assert socket.close_code == 1013


async def test_a_socket_within_the_rate_of_its_user_is_served() -> None:
    async with World(requests_per_minute=1).serving() as world:
        ann = await world.user()
        async with world.http.ws_connect(
            "/api/v1/chat/stream", headers={"Authorization": f"Bearer {ann.token}"}
        ) as socket:
            assert (await socket.receive_json())["type"] == "ready"
        assert (await ann.get("/api/v1/auth/me")).json["rate_limit"] == "requests"
