"""What strangers can do to the server with sockets: little each, and not many at once."""

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
from tests.unit.streaming.server_fixture import Site
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
async def test_a_first_frame_of_over_16_kib_is_refused_as_soon_as_that_is_known(sent: bytes, at_once: bool) -> None:
    began = now()
    async with Site() as site, RawSocket.handshake(site, behind=sent if at_once else b"") as raw:
        if not at_once:
            raw.write(sent)
        while (frame := await raw.frame())[0] == 0xA:
            pass
        assert (frame[0], orjson.loads(frame[1])["code"]) == (TEXT, "too_large")
        assert await raw.close_code() == 4500
        assert (now() - began).total_seconds() < 2


@virtual_time_with_sockets
async def test_a_first_frame_of_16_kib_is_read() -> None:
    async with Site() as site:
        user = site.user()
        frame = _auth(site.token(user))
        async with RawSocket.handshake(site) as raw:
            raw.send(TEXT, _auth(site.token(user), 16 * KIB - len(frame)))
            assert orjson.loads((await raw.frame())[1])["type"] == "ready"


@pytest.mark.parametrize("at_once", [True, False])
@virtual_time_with_sockets
async def test_what_is_sent_right_behind_the_token_is_not_lost(at_once: bool) -> None:
    """At once: in one piece with the handshake, before its answer."""
    async with Site() as site:
        user = site.user()
        sent = client_frame(TEXT, _auth(site.token(user)))
        sent += b"".join(client_frame(TEXT, _message(number, 31_000)) for number in range(5))
        async with RawSocket.handshake(site, behind=sent if at_once else b"") as raw:
            if not at_once:
                raw.write(sent)
            acknowledged = 0
            while acknowledged < 5:
                acknowledged += orjson.loads((await raw.frame())[1])["type"] == "ack"
        assert len(site.world.turns(user)) == 5


@virtual_time_with_sockets
async def test_what_follows_the_first_frame_is_not_read_before_it_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Site() as site, RawSocket.handshake(site) as raw:
        asked, verify = asyncio.Event(), asyncio.Event()

        async def slow(_token: str) -> Principal:
            asked.set()
            await verify.wait()
            raise PlatformError(ErrorCode.UNAUTHORIZED)

        monkeypatch.setattr(site.verifier, "verify", slow)
        raw.send(TEXT, _auth("t"))
        await asked.wait()
        for _ in range(400):
            raw.write(b"\x81\xfe\xff\xff" + bytes(65_535))  # 26 MB, more than systems hold
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
    async with Site() as site, RawSocket.handshake(site) as raw:
        raw.send(0x9, b"there?")
        assert await raw.frame() == (0xA, b"there?")
        raw.send(TEXT, _auth(site.token(site.user())))
        assert orjson.loads((await raw.frame())[1])["type"] == "ready"


@virtual_time_with_sockets
async def test_a_refused_client_that_does_not_leave_is_cut_off_after_a_second() -> None:
    async with Site() as site, RawSocket.handshake(site) as raw:
        raw.send(TEXT, _auth("forged"))
        assert await raw.close_code() == 4500
        began = now()
        await raw.gone()
        assert 0.5 < (now() - began).total_seconds() < 2


async def _status(site: Site, **headers: str) -> int:
    try:
        async with site.anonymous(headers=headers):
            return 101
    except aiohttp.WSServerHandshakeError as refusal:
        return refusal.status


@virtual_time_with_sockets
async def test_strangers_of_one_address_are_limited_and_users_are_none() -> None:
    async with Site(limits=Limits(unauthenticated_sockets_per_address=2)) as site, AsyncExitStack() as stack:
        user = site.user()
        for _ in range(5):
            known = await stack.enter_async_context(site.socket(user))
        first = await stack.enter_async_context(site.anonymous())
        await stack.enter_async_context(site.anonymous())
        assert await _status(site) == 429
        assert await _status(site, Authorization=f"Bearer {site.token(user)}") == 101
        assert await _status(site, Authorization="Bearer forged") == 401
        await first.say("auth", token=site.token(user))
        await first.until("ready")
        assert await _status(site) == 101
        await known.say("ping")
        await known.until("pong")


@virtual_time_with_sockets
async def test_strangers_of_all_addresses_are_limited_and_leave_when_their_time_is_up() -> None:
    async with Site(limits=Limits(unauthenticated_sockets=2)) as site, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(site.anonymous()) for _ in range(2)]
        assert await _status(site) == 503
        for socket in sockets:
            assert (await socket.closed())[0] == 4500
        await asyncio.sleep(2)
        assert await _status(site) == 101


def test_a_first_frame_is_read_and_a_stranger_refused_under_uvloop_too() -> None:
    """Its transports are not asyncio's own."""

    async def play() -> None:
        async with Site(limits=Limits(refusal_seconds=0.05)) as site:
            user = site.user()
            sent = client_frame(TEXT, _auth(site.token(user))) + client_frame(TEXT, _message(1, 31_000))
            async with RawSocket.handshake(site, behind=sent) as raw:
                while orjson.loads((await raw.frame())[1])["type"] != "turn.completed":
                    pass
            for refused in (client_frame(TEXT, _auth("forged")) + sent, client_frame(TEXT, b"x" * 1_000_000)):
                async with RawSocket.handshake(site, behind=refused) as raw:
                    assert orjson.loads((await raw.frame())[1])["type"] == "error"
                    assert await raw.close_code() == 4500
                    async with asyncio.timeout(10):
                        await raw.gone()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())
