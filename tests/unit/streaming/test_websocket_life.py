"""Who may open a WebSocket, how long it lives, and how it ends."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import aiohttp
import orjson
import pytest
import uvloop
from structlog.testing import capture_logs

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.protocol.shapes import AgentStatus
from tests.fakes.agent import Reply
from tests.unit.streaming.raw import RawSocket
from tests.unit.streaming.server_fixture import Site
from tests.virtual_time import now, virtual_time_with_sockets

UNAUTHORIZED = (4500, "unauthorized")


async def _refused_status(site: Site, **offer: dict[str, str]) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        async with site.anonymous(**offer):
            pass
    return refusal.value.status


@virtual_time_with_sockets
async def test_a_bad_header_is_refused_before_the_upgrade() -> None:
    async with Site() as site:
        for value in ("Bearer forged", "Bearer", "Basic abc", "Bearer ", ""):
            assert await _refused_status(site, headers={"Authorization": value}) == 401


@virtual_time_with_sockets
async def test_an_expired_token_in_the_header_is_refused_before_the_upgrade() -> None:
    async with Site() as site:
        headers = site.authorization(site.user(), seconds=1)
        await asyncio.sleep(2)
        assert await _refused_status(site, headers=headers) == 401


@pytest.mark.parametrize("after", ["nonsense", "epoch:-1", "epoch:1.5", "a b:1", "epoch:", ":1", "e:" + "9" * 40, ""])
@pytest.mark.parametrize("manner", ["header", "ticket", "first frame"])
@virtual_time_with_sockets
async def test_a_malformed_cursor_is_refused_in_a_way_that_browsers_can_read(after: str, manner: str) -> None:
    async with Site() as site:
        user = site.user()
        headers = site.authorization(user) if manner == "header" else {}
        ticket = {"ticket": site.tickets.issue(site.principal(user), "chat").text} if manner == "ticket" else {}
        async with site.anonymous({"after": after} | ticket, headers) as socket:
            assert await socket.closed() == (4501, "protocol_error")
            assert [frame["code"] for frame in socket.seen] == ["invalid_cursor"]
        if ticket:
            async with site.anonymous(ticket) as socket:
                await socket.until("ready")  # it was not spent


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://chat.example.evil.test", "chat.example"])
@virtual_time_with_sockets
async def test_a_page_of_a_strange_origin_is_refused_in_a_way_that_it_can_read(origin: str) -> None:
    async with Site() as site:
        headers = site.authorization(site.user()) | {"Origin": origin}
        with capture_logs() as lines:
            async with site.anonymous(headers=headers) as socket:
                assert await socket.closed() == (4501, "protocol_error")
                assert [frame["code"] for frame in socket.seen] == ["origin_not_allowed"]
        [line] = [line for line in lines if line["event"] == "origin.refused"]
        assert (line["origin"], "ALLOWED_ORIGINS" in line["hint"]) == (origin, True)


@virtual_time_with_sockets
async def test_a_page_of_an_allowed_origin_is_let_in() -> None:
    async with Site() as site:
        headers = site.authorization(site.user()) | {"Origin": "https://chat.example"}
        async with site.anonymous(headers=headers) as socket:
            await socket.until("ready")


@virtual_time_with_sockets
async def test_a_blocked_account_is_refused() -> None:
    async with Site() as site:
        user = site.user()
        profile = site.world.database.profile(user)
        object.__setattr__(profile.account, "agent_status", AgentStatus.BLOCKED)
        assert await _refused_status(site, headers=site.authorization(user)) == 403
        async with site.anonymous() as socket:
            await socket.say("auth", token=site.token(user))
            assert (await socket.closed())[0] == 4503


@virtual_time_with_sockets
async def test_a_sender_whose_account_was_blocked_is_told_so_before_the_socket_closes() -> None:
    async with Site() as site, site.socket(site.user()) as socket:

        async def blocked(operation: str) -> None:
            if operation == "accept":
                raise PlatformError(ErrorCode.ACCOUNT_BLOCKED)

        site.world.database.before = blocked
        await socket.say("message", client_message_id="m1", content="hello")
        assert (await socket.closed())[0] == 4503
        assert [(frame["id"], frame["code"]) for frame in socket.seen[1:]] == [("m1", "account_blocked")]


@virtual_time_with_sockets
async def test_what_was_sent_behind_the_cause_of_a_close_is_not_obeyed() -> None:
    async with Site() as site:
        user = site.user()
        async with RawSocket.open(site, user) as raw:
            raw.send(0x1, orjson.dumps({"type": "auth", "token": site.token(site.user())}))
            raw.send(0x1, b'{"type":"message","client_message_id":"m1","content":"hello"}')
            assert await raw.close_code() == 4500
        assert site.world.turns(user) == []


@virtual_time_with_sockets
async def test_a_ticket_opens_one_socket_once() -> None:
    async with Site() as site:
        user = site.user()
        ticket = site.tickets.issue(site.principal(user), "chat").text
        async with site.anonymous({"ticket": ticket}) as socket:
            assert (await socket.until("ready"))["user_id"] == user
        async with site.anonymous({"ticket": ticket}) as socket:
            assert await socket.closed() == UNAUTHORIZED


@virtual_time_with_sockets
async def test_a_forged_and_an_expired_ticket_close_the_socket() -> None:
    async with Site() as site:
        ticket = site.tickets.issue(site.principal(site.user()), "chat").text
        await asyncio.sleep(31)
        for text in (ticket, ticket[:-2] + "xx", "nonsense", ""):
            async with site.anonymous({"ticket": text}) as socket:
                assert await socket.closed() == UNAUTHORIZED


@virtual_time_with_sockets
async def test_the_first_frame_may_be_the_token() -> None:
    async with Site() as site:
        user = site.user()
        async with site.anonymous() as socket:
            await socket.say("auth", token=site.token(user))
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
    async with Site() as site:
        async with site.anonymous() as socket:
            await socket.raw.send_str(first)
            assert await socket.closed() == UNAUTHORIZED
        assert site.process.hub.counts["sessions"] == 0


@virtual_time_with_sockets
async def test_a_binary_first_frame_closes_the_socket() -> None:
    async with Site() as site, site.anonymous() as socket:
        await socket.raw.send_bytes(b"hello")
        assert await socket.closed() == UNAUTHORIZED


@virtual_time_with_sockets
async def test_an_expired_token_in_the_first_frame_closes_with_its_own_code() -> None:
    async with Site() as site:
        token = site.token(site.user(), seconds=1)
        await asyncio.sleep(2)
        async with site.anonymous() as socket:
            await socket.say("auth", token=token)
            assert await socket.closed() == (4001, "token_expired")


@virtual_time_with_sockets
async def test_a_socket_that_says_nothing_is_closed_after_ten_seconds() -> None:
    async with Site() as site:
        began = now()
        async with site.anonymous() as socket:
            assert await socket.closed() == UNAUTHORIZED
        assert 9.9 < (now() - began).total_seconds() < 16


@virtual_time_with_sockets
async def test_a_socket_is_told_nothing_before_it_is_somebodys() -> None:
    async with Site() as site:
        user = site.user()
        async with site.socket(user) as known, site.anonymous() as unknown:
            await known.say("message", client_message_id="m1", content="secret")
            await known.until("turn.completed")
            assert await unknown.closed() == UNAUTHORIZED
            assert [frame["type"] for frame in unknown.seen] == ["error"]


@virtual_time_with_sockets
async def test_a_database_that_is_away_closes_with_try_again_later() -> None:
    async with Site() as site:
        headers = site.authorization(site.user())

        async def away(operation: str) -> None:
            if operation == "open_turns":
                raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

        site.world.database.before = away
        async with site.anonymous(headers=headers) as socket:
            assert await socket.closed() == (1013, "unavailable")
            assert socket.seen[0]["code"] == "supabase_unavailable"


# -- how long it lives -----------------------------------------------------------------------------------------------


@virtual_time_with_sockets
async def test_a_socket_closes_when_its_token_expires() -> None:
    async with Site() as site, site.socket(site.user(), seconds=100) as socket:
        began = now()
        assert await socket.closed() == (4001, "token_expired")
        assert 99 < (now() - began).total_seconds() < 101


@virtual_time_with_sockets
async def test_a_fresh_token_before_the_old_one_expires_keeps_the_socket_open() -> None:
    async with Site() as site:
        user = site.user()
        async with site.socket(user, seconds=60) as socket:
            await asyncio.sleep(20)
            await socket.say("auth", id="fresh", token=site.token(user, seconds=300))
            assert (await socket.until("ack"))["id"] == "fresh"
            began = now()
            assert await socket.closed() == (4001, "token_expired")
            assert 299 < (now() - began).total_seconds() < 301


@virtual_time_with_sockets
async def test_a_bad_fresh_token_is_an_error_and_the_old_one_goes_on() -> None:
    async with Site() as site, site.socket(site.user(), seconds=60) as socket:
        await socket.say("auth", id="fresh", token="forged")
        error = await socket.until("error")
        assert (error["id"], error["code"]) == ("fresh", "unauthorized")
        await socket.say("ping")
        await socket.until("pong")


@virtual_time_with_sockets
async def test_another_users_token_closes_the_socket() -> None:
    async with Site() as site, site.socket(site.user()) as socket:
        await socket.say("auth", token=site.token(site.user()))
        assert await socket.closed() == UNAUTHORIZED


@virtual_time_with_sockets
async def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_closed() -> None:
    async with Site() as site:
        user = site.user()
        async with site.socket(user) as alive, site.socket(user, autoping=False) as dead:
            living = asyncio.ensure_future(alive.closed())
            began = now()
            assert await dead.closed() == (4003, "no_pong")
            assert 34 < (now() - began).total_seconds() < 36
            await asyncio.sleep(300)
            assert not living.done()
            living.cancel()


@virtual_time_with_sockets
async def test_a_command_that_takes_long_does_not_count_as_silence() -> None:
    async with Site() as site, site.socket(site.user()) as socket:

        async def slow(operation: str) -> None:
            if operation == "accept":
                await asyncio.sleep(50)

        site.world.database.before = slow
        await socket.say("message", client_message_id="m1", content="hello")
        await socket.until("turn.completed")


@virtual_time_with_sockets
async def test_the_seventeenth_connection_is_refused() -> None:
    async with Site(limits=Limits(connections_per_user=2)) as site:
        user = site.user()
        async with site.socket(user) as first, site.socket(user) as second:
            living = [asyncio.ensure_future(socket.closed()) for socket in (first, second)]
            async with site.anonymous(headers=site.authorization(user)) as third:
                assert await third.closed() == (4004, "too_many_connections")
                assert (third.seen[-1]["code"], third.seen[-1]["retryable"]) == ("rate_limited", True)
                assert third.seen[-1]["retry_after"] == 5
            async with site.socket(site.user()):
                pass
            for socket in living:
                assert not socket.done()
                socket.cancel()
        async with site.socket(user):
            pass


@virtual_time_with_sockets
async def test_a_connection_beyond_the_limit_takes_the_place_of_one_whose_client_is_gone() -> None:
    """All devices come back at once from a lost network, while the server has not missed them yet."""
    async with Site(limits=Limits(connections_per_user=2)) as site:
        user = site.user()
        async with site.socket(user) as first, site.socket(user, autoping=False) as gone:
            living, dying = asyncio.ensure_future(first.closed()), asyncio.ensure_future(gone.closed())
            async with site.socket(user):
                assert await dying == (4003, "no_pong")
                assert not living.done()
                living.cancel()


@virtual_time_with_sockets
async def test_of_many_sockets_of_one_user_those_beyond_the_limit_are_refused_at_once_but_a_few() -> None:
    async with Site(limits=Limits(connections_per_user=2)) as site, AsyncExitStack() as stack:
        user = site.user()
        headers = site.authorization(user)

        async def open_one() -> float:
            began = now()
            socket = await stack.enter_async_context(site.anonymous(headers=headers))
            await socket.closed()
            return (now() - began).total_seconds()

        ends = [asyncio.ensure_future(open_one()) for _ in range(20)]
        await asyncio.sleep(0.5)
        assert sum(end.done() for end in ends) == 16  # two may join, and two wait for those to give way
        await asyncio.sleep(4)
        assert sum(end.done() for end in ends) == 18
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


@virtual_time_with_sockets
async def test_a_silent_client_is_found_however_many_ask_for_its_place() -> None:
    async with Site(limits=Limits(connections_per_user=1)) as site:
        user = site.user()
        async with site.socket(user, autoping=False) as gone:
            dying = asyncio.ensure_future(gone.closed())

            async def come_back() -> None:
                while True:
                    async with site.anonymous(headers=site.authorization(user)) as socket:
                        await socket.until("ready", "error")
                    await asyncio.sleep(0.5)

            pressing = asyncio.ensure_future(come_back())
            began = now()
            assert await dying == (4003, "no_pong")
            assert (now() - began).total_seconds() < 4
            pressing.cancel()
            await asyncio.gather(pressing, return_exceptions=True)


@virtual_time_with_sockets
async def test_a_socket_of_a_lost_session_is_told_it_moved() -> None:
    async with Site() as site:
        user = site.user()
        async with site.socket(user) as socket:
            (await site.process.hub.session(user)).lost()
            assert await socket.closed() == (4002, "moved")
        async with site.socket(user):
            pass


@virtual_time_with_sockets
async def test_a_closed_socket_leaves_nothing_behind() -> None:
    async with Site() as site:
        user = site.user()
        before = len(asyncio.all_tasks())
        async with site.socket(user):
            pass
        await asyncio.sleep(10)
        assert (len(asyncio.all_tasks()), site.process.hub.counts["connections"]) == (before, 0)


# -- slow ones -------------------------------------------------------------------------------------------------------

WORD = "x" * 16_000
FLOOD = Reply(words=(WORD,) * 600)
TIGHT = Limits(slow_consumer_bytes=256 * 1024, log_bytes=64 * 1024 * 1024)


@virtual_time_with_sockets
async def test_a_slow_consumer_is_closed_with_its_code_and_never_delays_another() -> None:
    async with Site(limits=TIGHT, reply=FLOOD) as site:
        user = site.user()
        async with RawSocket.open(site, user, receive_buffer=4096) as slow, site.socket(user) as quick:
            await quick.say("message", client_message_id="m1", content="hello")
            await quick.until("turn.completed")
            assert quick.text() == FLOOD.text
            assert await slow.close_code() == 4000


@virtual_time_with_sockets
async def test_a_slow_consumer_that_never_reads_is_cut_off() -> None:
    async with Site(limits=TIGHT, reply=FLOOD) as site:
        user = site.user()
        async with RawSocket.open(site, user, receive_buffer=4096), site.socket(user) as quick:
            await quick.say("message", client_message_id="m1", content="hello")
            await quick.until("turn.completed")
            await asyncio.sleep(TIGHT.goodbye_seconds + 1)
            assert site.process.hub.counts["connections"] == 1


@virtual_time_with_sockets
async def test_a_line_that_is_only_slow_is_not_taken_for_a_dead_one() -> None:
    """A ping waits its turn behind what was written before it; when nothing arrives any more, it is over."""
    async with (
        Site(reply=Reply(words=("x" * 150_000,))) as site,
        RawSocket.open(site, site.user(), receive_buffer=4096) as slow,
    ):
        slow.send(0x1, b'{"type":"message","client_message_id":"m1","content":"hello"}')
        for _ in range(35):
            await slow.read(4000)
            await asyncio.sleep(4)  # over two minutes in all
        assert site.process.hub.counts["connections"] == 1
        await asyncio.sleep(60)
        assert site.process.hub.counts["connections"] == 0


def test_a_slow_consumer_is_cut_off_under_uvloop_too() -> None:
    """Its transports are not asyncio's own."""

    async def play() -> None:
        limits = replace(TIGHT, goodbye_seconds=0.05)
        async with Site(limits=limits, reply=FLOOD) as site:
            user = site.user()
            async with RawSocket.open(site, user, receive_buffer=4096), site.socket(user) as quick:
                session = await site.process.hub.session(user)
                await quick.say("message", client_message_id="m1", content="hello")
                await quick.until("turn.completed")
                async with asyncio.timeout(10):
                    while len(session.connections) == 2:
                        await quick.say("ping")
                        await quick.until("pong")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())


@virtual_time_with_sockets
async def test_a_client_that_asks_and_never_reads_is_cut_off() -> None:
    question = b'{"type":"ping",' + b",".join(b'"%c":1' % letter for letter in range(97, 113)) + b"}"
    async with Site() as site, RawSocket.open(site, site.user(), receive_buffer=4096) as raw:
        for _ in range(5000):
            raw.send(0x1, question)
            await asyncio.sleep(0)
        await asyncio.sleep(site.limits.goodbye_seconds + 1)
        assert site.process.hub.counts["connections"] == 0
