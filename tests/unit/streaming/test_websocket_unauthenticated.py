"""Limits of unauthenticated sockets: the size of the first frame, and how many may be open."""

import asyncio
from contextlib import AsyncExitStack

import aiohttp
import orjson
import pytest
import uvloop

from server.ports import Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from tests.unit.streaming.raw import RawSocket, client_frame
from tests.unit.streaming.server_fixture import StreamingServer
from tests.virtual_time import now, virtual_time_with_sockets

TEXT = 0x1
KIB = 1024


def _auth(token: str, padding: int = 0) -> bytes:
    return orjson.dumps({"type": "auth", "token": token}) + b" " * padding


def _message(number: int, size: int = 5) -> bytes:
    return orjson.dumps({"type": "message", "client_message_id": f"m{number}", "content": "x" * size})


@pytest.mark.parametrize(
    "sent",
    [
        client_frame(TEXT, b"x" * 16_385),
        client_frame(TEXT, b"x" * 1_900_000)[:100],
        client_frame(TEXT, b"x" * 1_900_000),
        client_frame(TEXT, b"x" * 9_000, final=False) * 2,
        client_frame(0x9, b"") * 3_000,
    ],
    ids=["one byte too long", "announced", "whole", "in fragments", "pings"],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["behind the handshake", "after it"])
@virtual_time_with_sockets
async def test_a_first_frame_of_over_16_kib_is_refused_as_soon_as_its_size_is_known(sent: bytes, at_once: bool) -> None:
    began = now()
    async with StreamingServer() as server, RawSocket.handshake(server, behind=sent if at_once else b"") as raw:
        if not at_once:
            raw.write(sent)
        while (frame := await raw.frame())[0] == 0xA:
            pass
        assert (frame[0], orjson.loads(frame[1])["code"]) == (TEXT, "too_large")
        assert await raw.close_code() == 4500
        assert (now() - began).total_seconds() < 2


@virtual_time_with_sockets
async def test_a_first_frame_of_16_kib_is_read() -> None:
    async with StreamingServer() as server:
        user = server.user()
        frame = _auth(server.token(user))
        async with RawSocket.handshake(server) as raw:
            raw.send(TEXT, _auth(server.token(user), 16 * KIB - len(frame)))
            assert orjson.loads((await raw.frame())[1])["type"] == "ready"


@pytest.mark.parametrize("at_once", [True, False])
@virtual_time_with_sockets
async def test_frames_right_behind_the_token_are_not_lost(at_once: bool) -> None:
    """`at_once`: together with the handshake's request, before its response."""
    async with StreamingServer() as server:
        user = server.user()
        sent = client_frame(TEXT, _auth(server.token(user)))
        sent += b"".join(client_frame(TEXT, _message(number, 31_000)) for number in range(5))
        async with RawSocket.handshake(server, behind=sent if at_once else b"") as raw:
            if not at_once:
                raw.write(sent)
            acknowledged = 0
            while acknowledged < 5:
                acknowledged += orjson.loads((await raw.frame())[1])["type"] == "ack"
        assert len(server.world.turns(user)) == 5


@virtual_time_with_sockets
async def test_nothing_behind_the_first_frame_is_read_before_the_token_is_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with StreamingServer() as server, RawSocket.handshake(server) as raw:
        asked, verify = asyncio.Event(), asyncio.Event()

        async def slow(_token: str) -> Principal:
            asked.set()
            await verify.wait()
            raise PlatformError(ErrorCode.UNAUTHORIZED)

        monkeypatch.setattr(server.verifier, "verify", slow)
        raw.send(TEXT, _auth("t"))
        await asked.wait()
        for _ in range(400):
            raw.write(b"\x81\xfe\xff\xff" + bytes(65_535))  # 26 MB, more than kernels buffer
        await asyncio.sleep(5)
        left = raw.unsent
        assert left > 0
        await asyncio.sleep(60)
        assert raw.unsent == left
        verify.set()
        assert orjson.loads((await raw.frame())[1])["code"] == "unauthorized"
        assert await raw.close_code() == 4500


@virtual_time_with_sockets
async def test_a_ping_before_the_token_is_answered() -> None:
    async with StreamingServer() as server, RawSocket.handshake(server) as raw:
        raw.send(0x9, b"there?")
        assert await raw.frame() == (0xA, b"there?")
        raw.send(TEXT, _auth(server.token(server.user())))
        assert orjson.loads((await raw.frame())[1])["type"] == "ready"


@virtual_time_with_sockets
async def test_a_refused_client_that_stays_connected_is_aborted_after_a_second() -> None:
    async with StreamingServer() as server, RawSocket.handshake(server) as raw:
        raw.send(TEXT, _auth("forged"))
        assert await raw.close_code() == 4500
        began = now()
        await raw.gone()
        assert 0.5 < (now() - began).total_seconds() < 2


async def _status(server: StreamingServer, **headers: str) -> int:
    try:
        async with server.anonymous(headers=headers):
            return 101
    except aiohttp.WSServerHandshakeError as refusal:
        return refusal.status


@virtual_time_with_sockets
async def test_unauthenticated_sockets_of_one_address_are_limited_and_users_are_not() -> None:
    async with (
        StreamingServer(limits=Limits(unauthenticated_sockets_per_address=2)) as server,
        AsyncExitStack() as stack,
    ):
        user = server.user()
        for _ in range(5):
            known = await stack.enter_async_context(server.socket(user))
        first = await stack.enter_async_context(server.anonymous())
        await stack.enter_async_context(server.anonymous())
        assert await _status(server) == 429
        assert await _status(server, Authorization=f"Bearer {server.token(user)}") == 101
        assert await _status(server, Authorization="Bearer forged") == 401
        await first.send("auth", token=server.token(user))
        await first.until("ready")
        assert await _status(server) == 101
        await known.send("ping")
        await known.until("pong")


@virtual_time_with_sockets
async def test_unauthenticated_sockets_of_all_addresses_are_limited_until_their_timeout() -> None:
    async with StreamingServer(limits=Limits(unauthenticated_sockets=2)) as server, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(server.anonymous()) for _ in range(2)]
        assert await _status(server) == 503
        for socket in sockets:
            assert (await socket.closed())[0] == 4500
        await asyncio.sleep(2)
        assert await _status(server) == 101


def test_a_first_frame_is_read_and_a_bad_token_refused_under_uvloop_too() -> None:
    """uvloop's transports are not asyncio's."""

    async def play() -> None:
        async with StreamingServer(limits=Limits(refusal_seconds=0.05)) as server:
            user = server.user()
            sent = client_frame(TEXT, _auth(server.token(user))) + client_frame(TEXT, _message(1, 31_000))
            async with RawSocket.handshake(server, behind=sent) as raw:
                while orjson.loads((await raw.frame())[1])["type"] != "turn.completed":
                    pass
            for refused in (client_frame(TEXT, _auth("forged")) + sent, client_frame(TEXT, b"x" * 1_000_000)):
                async with RawSocket.handshake(server, behind=refused) as raw:
                    assert orjson.loads((await raw.frame())[1])["type"] == "error"
                    assert await raw.close_code() == 4500
                    async with asyncio.timeout(120):
                        await raw.gone()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())
