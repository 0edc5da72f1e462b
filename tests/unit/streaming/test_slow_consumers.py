"""Clients that read too slowly, or not at all: what is closed, and that no other client waits for them."""

import asyncio
from dataclasses import replace

import uvloop

from server.protocol.limits import Limits
from tests.fakes.agent import Reply
from tests.unit.streaming.raw import RawSocket
from tests.unit.streaming.server_fixture import StreamingServer
from tests.virtual_time import virtual_time_with_sockets

WORD = "x" * 16_000
FLOOD = Reply(words=(WORD,) * 600)
TIGHT = Limits(slow_consumer_bytes=256 * 1024, log_bytes=64 * 1024 * 1024)


@virtual_time_with_sockets
async def test_a_slow_consumer_is_closed_with_its_code_and_delays_no_other_connection() -> None:
    async with StreamingServer(limits=TIGHT, reply=FLOOD) as server:
        user = server.user()
        async with RawSocket.open(server, user, receive_buffer=4096) as slow, server.socket(user) as quick:
            await quick.send("message", client_message_id="m1", content="hello")
            await quick.until("turn.completed")
            assert quick.text() == FLOOD.text
            assert await slow.close_code() == 4000


@virtual_time_with_sockets
async def test_a_slow_consumer_that_never_reads_is_aborted() -> None:
    async with StreamingServer(limits=TIGHT, reply=FLOOD) as server:
        user = server.user()
        async with RawSocket.open(server, user, receive_buffer=4096), server.socket(user) as quick:
            await quick.send("message", client_message_id="m1", content="hello")
            await quick.until("turn.completed")
            await asyncio.sleep(TIGHT.close_seconds + 1)
            assert server.process.hub.counts["connections"] == 1


@virtual_time_with_sockets
async def test_a_slow_connection_is_not_closed_as_a_dead_one() -> None:
    """A ping queues behind earlier bytes. Once no more bytes are acknowledged, the connection is closed."""
    async with (
        StreamingServer(reply=Reply(words=("x" * 150_000,))) as server,
        RawSocket.open(server, server.user(), receive_buffer=4096) as slow,
    ):
        slow.send(0x1, b'{"type":"message","client_message_id":"m1","content":"hello"}')
        for _ in range(35):
            await slow.read(4000)
            await asyncio.sleep(4)  # over two minutes in all
        assert server.process.hub.counts["connections"] == 1
        await asyncio.sleep(60)
        assert server.process.hub.counts["connections"] == 0


def test_a_slow_consumer_is_aborted_under_uvloop_too() -> None:
    """uvloop's transports are not asyncio's."""

    async def play() -> None:
        limits = replace(TIGHT, close_seconds=0.05)
        async with StreamingServer(limits=limits, reply=FLOOD) as server:
            user = server.user()
            async with RawSocket.open(server, user, receive_buffer=4096), server.socket(user) as quick:
                session = await server.process.hub.session(user)
                await quick.send("message", client_message_id="m1", content="hello")
                await quick.until("turn.completed")
                async with asyncio.timeout(120):
                    while len(session.connections) == 2:
                        await quick.send("ping")
                        await quick.until("pong")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())


@virtual_time_with_sockets
async def test_a_client_that_asks_too_much_at_once_is_closed_with_the_code_of_a_slow_one() -> None:
    async with StreamingServer() as server, RawSocket.open(server, server.user()) as raw:
        for _ in range(1000):
            raw.send(0x1, b'{"type":"ping"}')
        assert await raw.close_code() == 4000


@virtual_time_with_sockets
async def test_a_client_that_never_reads_its_responses_is_aborted() -> None:
    question = b'{"type":"ping",' + b",".join(b'"%c":1' % letter for letter in range(97, 113)) + b"}"
    async with StreamingServer() as server, RawSocket.open(server, server.user(), receive_buffer=4096) as raw:
        for _ in range(5000):
            raw.send(0x1, question)
            await asyncio.sleep(0)
        await asyncio.sleep(server.limits.close_seconds + 1)
        assert server.process.hub.counts["connections"] == 0
