"""Whoever is signed out, by whatever means, is out on every instance; everybody else stays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import psycopg
import pytest

from tests.faults.two_servers import TwoServers
from tests.stack.chat_client import TIMEOUT, ChatUser, register
from tests.stack.own_server import ServerProcess

SIGNED_OUT = (4502, "signed_out")


@asynccontextmanager
async def socket_of(user: ChatUser, server: ServerProcess) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A socket past its `ready`."""
    async with user.http.ws_connect(f"{server.url}/api/v1/chat/stream", headers=user.headers) as socket:
        assert (await asyncio.wait_for(socket.receive_json(), TIMEOUT))["type"] == "ready"
        yield socket


async def closed(socket: aiohttp.ClientWebSocketResponse) -> tuple[int, str]:
    """Read to the close frame. Its code and reason."""
    async with asyncio.timeout(TIMEOUT):
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return message.data, message.extra or ""


async def is_open(socket: aiohttp.ClientWebSocketResponse) -> bool:
    """True when the server answers a ping. Fails if it closed the socket, or does not answer."""
    await socket.send_json({"type": "ping"})
    async with asyncio.timeout(TIMEOUT):
        while (await socket.receive_json())["type"] != "pong":
            pass
    return True


async def status(user: ChatUser, server: ServerProcess) -> int:
    return (await replace(user, url=server.url).call("GET", "/auth/me"))[0]


async def sign_in(user: ChatUser) -> ChatUser:
    """The same user on another device."""
    body = {"email": user.email, "password": user.password}
    async with user.http.post(f"{user.url}/api/v1/auth/login", json=body) as response:
        tokens = await response.json()
    return replace(user, access_token=tokens["access_token"], refresh_token=tokens["refresh_token"])


async def ticket_of(user: ChatUser) -> str:
    return str((await user.call("POST", "/chat/ticket"))[1]["ticket"])


async def key_of(user: ChatUser, *scopes: str) -> tuple[ChatUser, str]:
    """A script with an API key of the user, and the key's id."""
    code, made = await user.call("POST", "/user/api-keys", {"name": "script", "scopes": list(scopes)})
    assert code == 201, made
    return replace(user, access_token=made["key"]), made["id"]


async def test_signing_out_ends_the_sockets_streams_and_tickets_of_that_device_on_every_instance(
    both: TwoServers,
) -> None:
    phone = await register(both.http, both.first.url)
    laptop = await sign_in(phone)
    for server in (both.first, both.second):  # each instance has checked both sign-ins before
        assert (await status(phone, server), await status(laptop, server)) == (200, 200)
    ticket = await ticket_of(phone)
    async with (
        socket_of(phone, both.first) as near,
        socket_of(phone, both.second) as far,
        socket_of(laptop, both.second) as other,
        both.http.get(f"{both.second.url}/api/v1/chat/events", headers=phone.headers) as stream,
    ):
        assert (await phone.call("POST", "/auth/logout", {"scope": "local"}))[0] == 204
        assert await closed(near) == await closed(far) == SIGNED_OUT
        said = await asyncio.wait_for(stream.text(), TIMEOUT)
        assert said.rstrip().endswith('{"type":"reconnect","reason":"signed_out","reconnect":false}')
        assert await is_open(other)
    for server in (both.first, both.second):
        assert (await status(phone, server), await status(laptop, server)) == (401, 200)
        async with both.http.get(f"{server.url}/api/v1/chat/events?ticket={ticket}") as refused:
            assert refused.status == 401


async def connected(user: ChatUser) -> set[str]:
    """The user's sign-ins with connections. Asked on the first instance; the second has half a second to answer it."""
    return {one["session_id"] for one in (await user.get("/auth/sessions"))["connections"]}


async def test_another_device_is_signed_out_from_the_list_of_sessions(both: TwoServers) -> None:
    phone = await register(both.http, both.first.url)
    laptop = await sign_in(phone)
    listed = (await phone.get("/auth/sessions"))["data"]
    assert [one["current"] for one in listed] == [False, True]  # the newest first
    async with socket_of(laptop, both.second) as socket, socket_of(phone, both.second) as own:
        async with asyncio.timeout(TIMEOUT):
            while await connected(phone) != {one["id"] for one in listed}:
                await asyncio.sleep(0.1)
        assert (await phone.call("DELETE", f"/auth/sessions/{listed[0]['id']}"))[0] == 204
        assert await closed(socket) == SIGNED_OUT
        assert await is_open(own)
    assert (await status(laptop, both.second), await status(phone, both.second)) == (401, 200)
    body = {"refresh_token": laptop.refresh_token}
    async with both.http.post(f"{both.first.url}/api/v1/auth/refresh", json=body) as refused:
        assert refused.status == 401
    assert [one["current"] for one in (await phone.get("/auth/sessions"))["data"]] == [True]


@pytest.mark.parametrize("scope", ["others", "global"])
async def test_signing_out_the_others_or_all(both: TwoServers, scope: str) -> None:
    phone = await register(both.http, both.first.url)
    laptop = await sign_in(phone)
    async with socket_of(phone, both.second) as own, socket_of(laptop, both.second) as other:
        assert (await phone.call("POST", "/auth/logout", {"scope": scope}))[0] == 204
        assert await closed(other) == SIGNED_OUT
        if scope == "others":
            assert await is_open(own)
        else:
            assert await closed(own) == SIGNED_OUT
    assert await status(phone, both.second) == (200 if scope == "others" else 401)
    assert await status(laptop, both.second) == 401


async def _sign_out_at_supabase(both: TwoServers, user: ChatUser, env: dict[str, str]) -> None:
    """As `signOut()` of supabase-js does."""
    headers = {**user.headers, "apikey": env["SUPABASE_ANON_KEY"]}
    async with both.http.post(f"{env['SUPABASE_URL']}/auth/v1/logout?scope=global", headers=headers) as response:
        assert response.status == 204


async def _ban(user: ChatUser, env: dict[str, str]) -> None:
    await _execute(env, "update auth.users set banned_until = now() + interval '1 day' where id = %s", user)


async def _delete(user: ChatUser, env: dict[str, str]) -> None:
    await _execute(env, "delete from auth.users where id = %s", user)


async def _execute(env: dict[str, str], statement: Any, user: ChatUser) -> None:
    async with await psycopg.AsyncConnection.connect(env["SUPABASE_DB_URL"], autocommit=True) as database:
        await database.execute(statement, [user.id])


@pytest.mark.parametrize("deed", ["sign_out", "ban", "delete"])
async def test_what_happens_at_supabase_itself_counts_on_every_instance(
    both: TwoServers, server_env: dict[str, str], deed: str
) -> None:
    user, stranger = [await register(both.http, both.first.url) for _ in range(2)]
    script, _ = await key_of(user, "chat")
    async with (
        socket_of(user, both.first) as near,
        socket_of(user, both.second) as far,
        socket_of(script, both.second) as scripted,
        socket_of(stranger, both.second) as other,
    ):
        if deed == "sign_out":
            await _sign_out_at_supabase(both, user, server_env)
        else:
            await (_ban if deed == "ban" else _delete)(user, server_env)
        codes = {(await closed(near))[0], (await closed(far))[0]}
        assert codes <= {4502, 4503}  # a deleted account is closed, too
        if deed == "sign_out":
            assert await is_open(scripted)  # a key is no sign-in
        else:
            assert (await closed(scripted))[0] in (4502, 4503)
        assert await is_open(other)
    for server in (both.first, both.second):
        async with asyncio.timeout(TIMEOUT):
            while await status(user, server) != 401:  # the last check counts for some seconds
                await asyncio.sleep(0.5)
        assert await status(stranger, server) == 200


async def test_a_revoked_key_is_refused_on_every_instance_and_its_connections_end(both: TwoServers) -> None:
    user = await register(both.http, both.first.url)
    script, key_id = await key_of(user, "read", "chat")
    assert (await status(script, both.first), await status(script, both.second)) == (200, 200)
    ticket = await ticket_of(script)
    async with socket_of(script, both.second) as socket, socket_of(user, both.second) as own:
        assert (await user.call("DELETE", f"/user/api-keys/{key_id}"))[0] == 204
        assert (await status(script, both.first), await status(script, both.second)) == (401, 401)
        assert await closed(socket) == SIGNED_OUT
        assert await is_open(own)
    async with both.http.get(f"{both.second.url}/api/v1/chat/events?ticket={ticket}") as refused:
        assert refused.status == 401


async def read_alike(path: str, one: ChatUser, other: ChatUser, *fields: str) -> None:
    """Return when both read the same, or the same in these fields. Between two reads the turn may be settled, once."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            answers = [await user.get(path) for user in (one, other)]
            if fields:
                answers = [{name: answer[name] for name in fields} for answer in answers]
            if answers[0] == answers[1]:
                return
            await asyncio.sleep(0.1)


async def test_a_script_chats_and_reads_with_its_key_on_any_instance(both: TwoServers) -> None:
    user = await register(both.http, both.first.url)
    script, _ = await key_of(user, "read", "chat")
    away = replace(script, url=both.second.url)
    turn = await away.say("ECHO by a script")
    assert turn["message"]["content"] == "by a script"
    for path in (f"/chat/turns/{turn['id']}", "/chat/history", "/user/profile", "/auth/me", "/agent/status"):
        await read_alike(path, script, user)
    await read_alike("/user/usage", script, user, "total", "days")
    assert (await script.call("PATCH", "/user/profile", {"name": "Eve"}))[1]["code"] == "forbidden"
    async with user.http.get(
        f"{both.first.url}/api/v1/chat/history", headers={"Authorization": "Bearer chat_0_0"}
    ) as no:
        assert no.status == 401
    for server in (both.first, both.second):
        assert script.access_token.rpartition("_")[2] not in server.log.read_text()
