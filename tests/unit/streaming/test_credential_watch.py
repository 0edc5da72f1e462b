"""Connections end with the sign-in or the API key with which they were opened."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import aiohttp

from server.auth.api_keys import ApiKeys
from server.ports import Principal, Scope
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.streaming.credential_watch import CredentialWatch
from tests.unit.streaming.server_fixture import Events, Socket, StreamingServer
from tests.virtual_time import now, virtual_time_with_sockets

EVERYTHING: frozenset[Scope] = frozenset({"read", "chat"})


@asynccontextmanager
async def watched(server: StreamingServer) -> AsyncIterator[CredentialWatch]:
    """The server's watch, which runs until the end of the block."""
    watch = CredentialWatch(server.process.hub, server.credentials)
    running = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        running.cancel()


def signed_in(server: StreamingServer, user_id: str, session_id: str) -> dict[str, str]:
    """The header of a token of this sign-in."""
    server.world.database.sign_ins[session_id] = user_id
    token = server.token(user_id)
    server.verifier.principals[token] = replace(server.verifier.principals[token], session_id=session_id)
    return {"Authorization": f"Bearer {token}"}


async def api_key(server: StreamingServer, user_id: str, seconds: float | None = None) -> tuple[str, dict[str, str]]:
    """The id of a new key, and its header."""
    principal = Principal(user_id, "", None, now())
    expires_at = None if seconds is None else now() + timedelta(seconds=seconds)
    key, text = await ApiKeys(server.credentials).create(principal, "script", EVERYTHING, expires_at)
    return key.id, {"Authorization": f"Bearer {text.get_secret_value()}"}


@virtual_time_with_sockets
async def test_a_socket_is_closed_when_its_sign_in_ends_and_those_of_others_stay() -> None:
    async with StreamingServer() as server, watched(server) as watch:
        user = server.user()
        phone, laptop = signed_in(server, user, "phone"), signed_in(server, user, "laptop")
        async with server.anonymous(headers=phone) as first, server.anonymous(headers=laptop) as second:
            await first.until("ready")
            await second.until("ready")
            del server.world.database.sign_ins["phone"]
            watch.recheck(user)
            assert await first.closed() == (4502, "signed_out")
            await second.send("ping")
            assert (await second.until("pong"))["type"] == "pong"


@virtual_time_with_sockets
async def test_what_ended_at_the_identity_provider_is_noticed_within_seconds() -> None:
    async with StreamingServer() as server, watched(server):
        user = server.user()
        async with server.anonymous(headers=signed_in(server, user, "phone")) as socket:
            await socket.until("ready")
            began = now()
            server.world.database.sign_ins.clear()
            assert await socket.closed() == (4502, "signed_out")
            assert now() - began <= timedelta(seconds=11)


@virtual_time_with_sockets
async def test_a_banned_or_deleted_user_is_disconnected_also_without_a_sign_in() -> None:
    async with StreamingServer() as server, watched(server) as watch:
        user = server.user()
        async with server.socket(user) as socket:
            server.world.database.banned.add(user)
            watch.recheck(user)
            assert await socket.closed() == (4502, "signed_out")


@virtual_time_with_sockets
async def test_an_event_stream_ends_and_says_not_to_reconnect_when_its_key_is_revoked() -> None:
    async with StreamingServer() as server, watched(server) as watch:
        user = server.user()
        key_id, header = await api_key(server, user)
        async with events(server, header) as stream:
            await stream.until("ready")
            await server.credentials.revoke_key(user, key_id)
            watch.recheck(user)
            assert await stream.receive() == {"type": "reconnect", "reason": "signed_out", "reconnect": False}
            assert await stream.receive() is None


@virtual_time_with_sockets
async def test_a_socket_ends_when_its_key_expires() -> None:
    async with StreamingServer() as server:
        _, header = await api_key(server, server.user(), seconds=60)
        async with server.anonymous(headers=header) as socket:
            await socket.until("ready")
            assert await socket.closed() == (4502, "signed_out")


@virtual_time_with_sockets
async def test_a_key_opens_a_socket_by_every_way_of_presenting_a_token() -> None:
    async with StreamingServer() as server:
        user = server.user()
        _, header = await api_key(server, user)
        key = header["Authorization"].removeprefix("Bearer ")
        ticket = server.tickets.issue(await server.authenticator.token(key, "chat"), "chat").text
        async with server.anonymous() as socket:
            await socket.send("auth", token=key)
            assert (await socket.until("ready"))["user_id"] == user
        async with server.anonymous({"ticket": ticket}) as socket:
            assert (await socket.until("ready"))["user_id"] == user
        async with server.anonymous(protocols=("chat.v1", f"bearer.{key}")) as socket:
            assert (await socket.until("ready"))["user_id"] == user


@virtual_time_with_sockets
async def test_a_socket_that_authenticates_anew_belongs_to_the_new_sign_in() -> None:
    async with StreamingServer() as server, watched(server) as watch:
        user = server.user()
        fresh = signed_in(server, user, "laptop")["Authorization"].removeprefix("Bearer ")
        async with server.anonymous(headers=signed_in(server, user, "phone")) as socket:
            await socket.until("ready")
            await socket.send("auth", token=fresh)
            await socket.until("ack")
            del server.world.database.sign_ins["phone"]
            watch.recheck(user)
            await alive(socket)
            del server.world.database.sign_ins["laptop"]
            watch.recheck(user)
            assert await socket.closed() == (4502, "signed_out")


@virtual_time_with_sockets
async def test_while_the_database_cannot_be_asked_no_connection_is_closed() -> None:
    async with StreamingServer() as server, watched(server) as watch:
        user = server.user()
        async with server.anonymous(headers=signed_in(server, user, "phone")) as socket:
            await socket.until("ready")
            asked = asyncio.Event()

            async def unavailable(operation: str) -> None:
                asked.set()
                raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

            server.world.database.sign_ins.clear()
            server.world.database.before = unavailable
            watch.recheck(user)
            await asked.wait()
            await alive(socket)
            server.world.database.before = None
            assert await socket.closed() == (4502, "signed_out")


async def alive(socket: Socket) -> None:
    await socket.send("ping")
    await socket.until("pong")


@asynccontextmanager
async def events(server: StreamingServer, headers: dict[str, str]) -> AsyncIterator[Events]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=None)
    async with server.http.get("/events", headers=headers, timeout=timeout) as response:
        yield Events(response)
