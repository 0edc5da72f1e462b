"""Authenticating a WebSocket, its lifetime, and its end."""

import asyncio
import gc
from contextlib import AsyncExitStack

import aiohttp
import orjson
import pytest
from structlog.testing import capture_logs

from server.protocol.codes import SIGNED_OUT, ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.protocol.shapes import AgentStatus
from server.sessions.events.snapshot import Snapshot
from server.streaming.connection import WebSocketConnection
from tests.unit.streaming.raw import RawSocket
from tests.unit.streaming.server_fixture import StreamingServer
from tests.virtual_time import now, virtual_time_with_sockets

UNAUTHORIZED = (4500, "unauthorized")


async def _refused_status(server: StreamingServer, **offer: dict[str, str]) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        async with server.anonymous(**offer):
            pass
    return refusal.value.status


@virtual_time_with_sockets
async def test_a_bad_header_is_refused_before_the_upgrade() -> None:
    async with StreamingServer() as server:
        for value in ("Bearer forged", "Bearer", "Basic abc", "Bearer ", ""):
            assert await _refused_status(server, headers={"Authorization": value}) == 401


@virtual_time_with_sockets
async def test_an_expired_token_in_the_header_is_refused_before_the_upgrade() -> None:
    async with StreamingServer() as server:
        headers = server.authorization(server.user(), seconds=1)
        await asyncio.sleep(2)
        assert await _refused_status(server, headers=headers) == 401


@pytest.mark.parametrize("after", ["nonsense", "epoch:-1", "epoch:1.5", "a b:1", "epoch:", ":1", "e:" + "9" * 40, ""])
@pytest.mark.parametrize("manner", ["header", "ticket", "first frame"])
@virtual_time_with_sockets
async def test_a_malformed_cursor_is_refused_on_the_open_socket(after: str, manner: str) -> None:
    async with StreamingServer() as server:
        user = server.user()
        headers = server.authorization(user) if manner == "header" else {}
        ticket = {"ticket": server.tickets.issue(server.principal(user), "chat").text} if manner == "ticket" else {}
        async with server.anonymous({"after": after} | ticket, headers) as socket:
            assert await socket.closed() == (4501, "protocol_error")
            assert [frame["code"] for frame in socket.seen] == ["invalid_cursor"]
        if ticket:
            async with server.anonymous(ticket) as socket:
                await socket.until("ready")  # the ticket was not spent


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://chat.example.evil.test", "chat.example"])
@virtual_time_with_sockets
async def test_a_foreign_origin_is_refused_on_the_open_socket(origin: str) -> None:
    async with StreamingServer() as server:
        headers = server.authorization(server.user()) | {"Origin": origin}
        with capture_logs() as lines:
            async with server.anonymous(headers=headers) as socket:
                assert await socket.closed() == (4501, "protocol_error")
                assert [frame["code"] for frame in socket.seen] == ["origin_not_allowed"]
        [line] = [line for line in lines if line["event"] == "origin.refused"]
        assert (line["origin"], "ALLOWED_ORIGINS" in line["hint"]) == (origin, True)


@virtual_time_with_sockets
async def test_an_allowed_origin_is_accepted() -> None:
    async with StreamingServer() as server:
        headers = server.authorization(server.user()) | {"Origin": "https://chat.example"}
        async with server.anonymous(headers=headers) as socket:
            await socket.until("ready")


@virtual_time_with_sockets
async def test_a_blocked_account_is_refused() -> None:
    async with StreamingServer() as server:
        user = server.user()
        profile = server.world.database.profile(user)
        object.__setattr__(profile.account, "agent_status", AgentStatus.BLOCKED)
        assert await _refused_status(server, headers=server.authorization(user)) == 403
        async with server.anonymous() as socket:
            await socket.send("auth", token=server.token(user))
            assert (await socket.closed())[0] == 4503


@virtual_time_with_sockets
async def test_a_message_of_a_blocked_account_is_an_error_and_closes_the_socket() -> None:
    async with StreamingServer() as server, server.socket(server.user()) as socket:

        async def blocked(operation: str) -> None:
            if operation == "accept":
                raise PlatformError(ErrorCode.ACCOUNT_BLOCKED)

        server.world.database.before = blocked
        await socket.send("message", client_message_id="m1", content="hello")
        assert (await socket.closed())[0] == 4503
        assert [(frame["id"], frame["code"]) for frame in socket.seen[1:]] == [("m1", "account_blocked")]


@virtual_time_with_sockets
async def test_frames_behind_the_cause_of_a_close_are_ignored() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with RawSocket.open(server, user) as raw:
            raw.send(0x1, orjson.dumps({"type": "auth", "token": server.token(server.user())}))
            raw.send(0x1, b'{"type":"message","client_message_id":"m1","content":"hello"}')
            assert await raw.close_code() == 4500
        assert server.world.turns(user) == []


@virtual_time_with_sockets
async def test_a_ticket_opens_one_socket_once() -> None:
    async with StreamingServer() as server:
        user = server.user()
        ticket = server.tickets.issue(server.principal(user), "chat").text
        async with server.anonymous({"ticket": ticket}) as socket:
            assert (await socket.until("ready"))["user_id"] == user
        async with server.anonymous({"ticket": ticket}) as socket:
            assert await socket.closed() == UNAUTHORIZED


@virtual_time_with_sockets
async def test_a_forged_and_an_expired_ticket_close_the_socket() -> None:
    async with StreamingServer() as server:
        ticket = server.tickets.issue(server.principal(server.user()), "chat").text
        await asyncio.sleep(31)
        for text in (ticket, ticket[:-2] + "xx", "nonsense", ""):
            async with server.anonymous({"ticket": text}) as socket:
                assert await socket.closed() == UNAUTHORIZED


@virtual_time_with_sockets
async def test_the_first_frame_may_be_the_token() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.anonymous() as socket:
            await socket.send("auth", token=server.token(user))
            assert (await socket.until("ready"))["user_id"] == user


@pytest.mark.parametrize(
    "first",
    [
        '{"type":"auth","token":"forged"}',
        '{"type":"message","client_message_id":"m1","content":"hello"}',
        '{"type":"ping"}',
        "not JSON",
        "x" * 70_000,
    ],
    ids=["a forged token", "a message", "a ping", "no JSON", "an oversize frame"],
)
@virtual_time_with_sockets
async def test_any_other_first_frame_closes_the_socket(first: str) -> None:
    async with StreamingServer() as server:
        async with server.anonymous() as socket:
            await socket.raw.send_str(first)
            assert await socket.closed() == UNAUTHORIZED
        assert server.process.hub.counts["sessions"] == 0


@virtual_time_with_sockets
async def test_a_binary_first_frame_closes_the_socket() -> None:
    async with StreamingServer() as server, server.anonymous() as socket:
        await socket.raw.send_bytes(b"hello")
        assert await socket.closed() == UNAUTHORIZED


@virtual_time_with_sockets
async def test_an_expired_token_in_the_first_frame_closes_with_its_own_code() -> None:
    async with StreamingServer() as server:
        token = server.token(server.user(), seconds=1)
        await asyncio.sleep(2)
        async with server.anonymous() as socket:
            await socket.send("auth", token=token)
            assert await socket.closed() == (4001, "token_expired")


@virtual_time_with_sockets
async def test_a_socket_that_sends_no_token_is_closed_after_ten_seconds() -> None:
    async with StreamingServer() as server:
        began = now()
        async with server.anonymous() as socket:
            assert await socket.closed() == UNAUTHORIZED
        assert 9.9 < (now() - began).total_seconds() < 16


@virtual_time_with_sockets
async def test_an_unauthenticated_socket_gets_no_event() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.socket(user) as known, server.anonymous() as unknown:
            await known.send("message", client_message_id="m1", content="secret")
            await known.until("turn.completed")
            assert await unknown.closed() == UNAUTHORIZED
            assert [frame["type"] for frame in unknown.seen] == ["error"]


@virtual_time_with_sockets
async def test_an_unavailable_database_closes_the_socket_with_1013() -> None:
    async with StreamingServer() as server:
        headers = server.authorization(server.user())

        async def unavailable(operation: str) -> None:
            if operation == "open_turns":
                raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

        server.world.database.before = unavailable
        async with server.anonymous(headers=headers) as socket:
            assert await socket.closed() == (1013, "unavailable")
            assert socket.seen[0]["code"] == "supabase_unavailable"


# -- lifetime --------------------------------------------------------------------------------------------------------


@virtual_time_with_sockets
async def test_a_socket_closes_when_its_token_expires() -> None:
    async with StreamingServer() as server, server.socket(server.user(), seconds=100) as socket:
        began = now()
        assert await socket.closed() == (4001, "token_expired")
        assert 99 < (now() - began).total_seconds() < 101


@virtual_time_with_sockets
async def test_a_fresh_token_before_the_old_one_expires_keeps_the_socket_open() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.socket(user, seconds=60) as socket:
            await asyncio.sleep(20)
            await socket.send("auth", id="fresh", token=server.token(user, seconds=300))
            assert (await socket.until("ack"))["id"] == "fresh"
            began = now()
            assert await socket.closed() == (4001, "token_expired")
            assert 299 < (now() - began).total_seconds() < 301


@virtual_time_with_sockets
async def test_a_bad_fresh_token_is_an_error_and_the_old_one_stays_valid() -> None:
    async with StreamingServer() as server, server.socket(server.user(), seconds=60) as socket:
        await socket.send("auth", id="fresh", token="forged")
        error = await socket.until("error")
        assert (error["id"], error["code"]) == ("fresh", "unauthorized")
        await socket.send("ping")
        await socket.until("pong")


@virtual_time_with_sockets
async def test_another_users_token_closes_the_socket() -> None:
    async with StreamingServer() as server, server.socket(server.user()) as socket:
        await socket.send("auth", token=server.token(server.user()))
        assert await socket.closed() == UNAUTHORIZED


@virtual_time_with_sockets
async def test_an_idle_socket_holds_neither_a_writer_nor_the_snapshot_that_it_was_sent() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.socket(user) as client:
            await client.send("ping")
            await client.until("pong")
            await asyncio.sleep(1)
            [connection] = (await server.process.hub.session(user)).connections
            assert isinstance(connection, WebSocketConnection)
            assert not connection.is_writing
            gc.collect()  # what earlier tests left behind
            assert not [one for one in gc.get_objects() if isinstance(one, Snapshot)]


@virtual_time_with_sockets
async def test_a_socket_that_has_ended_starts_no_writer_when_its_credential_ends() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.socket(user):
            [connection] = (await server.process.hub.session(user)).connections
        await asyncio.sleep(1)
        assert isinstance(connection, WebSocketConnection)
        connection.close(SIGNED_OUT)
        assert not connection.is_writing


@virtual_time_with_sockets
async def test_a_connection_above_the_limit_is_refused() -> None:
    async with StreamingServer(limits=Limits(connections_per_user=2)) as server:
        user = server.user()
        async with server.socket(user) as first, server.socket(user) as second:
            living = [asyncio.ensure_future(socket.closed()) for socket in (first, second)]
            async with server.anonymous(headers=server.authorization(user)) as third:
                assert await third.closed() == (4004, "too_many_connections")
                assert (third.seen[-1]["code"], third.seen[-1]["retryable"]) == ("rate_limited", True)
                assert third.seen[-1]["retry_after"] == 5
            async with server.socket(server.user()):
                pass
            for socket in living:
                assert not socket.done()
                socket.cancel()
        async with server.socket(user):
            pass


@virtual_time_with_sockets
async def test_a_connection_above_the_limit_gets_the_slot_of_a_dead_one() -> None:
    """After a network failure all devices reconnect at once, before the server has detected the dead connections."""
    async with StreamingServer(limits=Limits(connections_per_user=2)) as server:
        user = server.user()
        async with server.socket(user) as first, server.socket(user, autoping=False) as gone:
            living, dying = asyncio.ensure_future(first.closed()), asyncio.ensure_future(gone.closed())
            async with server.socket(user):
                assert await dying == (4003, "no_pong")
                assert not living.done()
                living.cancel()


@virtual_time_with_sockets
async def test_at_most_connections_per_user_sockets_wait_for_a_slot_and_more_are_refused_at_once() -> None:
    async with StreamingServer(limits=Limits(connections_per_user=2)) as server, AsyncExitStack() as stack:
        user = server.user()
        headers = server.authorization(user)

        async def open_one() -> float:
            began = now()
            socket = await stack.enter_async_context(server.anonymous(headers=headers))
            await socket.closed()
            return (now() - began).total_seconds()

        ends = [asyncio.ensure_future(open_one()) for _ in range(20)]
        await asyncio.sleep(0.5)
        assert sum(end.done() for end in ends) == 16  # two have a slot, and two wait for one
        await asyncio.sleep(4)
        assert sum(end.done() for end in ends) == 18
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


@virtual_time_with_sockets
async def test_a_dead_connection_is_detected_while_others_ask_for_its_slot() -> None:
    async with StreamingServer(limits=Limits(connections_per_user=1)) as server:
        user = server.user()
        async with server.socket(user, autoping=False) as gone:
            dying = asyncio.ensure_future(gone.closed())

            async def come_back() -> None:
                while True:
                    async with server.anonymous(headers=server.authorization(user)) as socket:
                        await socket.until("ready", "error")
                    await asyncio.sleep(0.5)

            pressing = asyncio.ensure_future(come_back())
            began = now()
            assert await dying == (4003, "no_pong")
            assert (now() - began).total_seconds() < 4
            pressing.cancel()
            await asyncio.gather(pressing, return_exceptions=True)


@virtual_time_with_sockets
async def test_a_socket_of_a_lost_session_is_closed_with_moved() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.socket(user) as socket:
            (await server.process.hub.session(user)).lost()
            assert await socket.closed() == (4002, "moved")
        async with server.socket(user):
            pass


@virtual_time_with_sockets
async def test_a_closed_socket_leaves_no_task_and_no_connection() -> None:
    async with StreamingServer() as server:
        user = server.user()
        before = len(asyncio.all_tasks())
        async with server.socket(user):
            pass
        await asyncio.sleep(10)
        assert (len(asyncio.all_tasks()), server.process.hub.counts["connections"]) == (before, 0)
