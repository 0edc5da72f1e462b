"""The proxy that simulates bad networks, against a server that echoes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.faults.chaos import BYTE_BY_BYTE, DROPPED, NORMAL, STALLED, ChaosProxy, Conditions, at_rate
from tests.stack.chat_client import TIMEOUT


class Echo:
    """A server that sends back what it receives, and records how its connections ended."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.pieces = 0
        self.ends: list[str] = []
        self.changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(64 * 1024):
                self.received += data
                self.pieces += 1
                self.changed.set()
                writer.write(data)
                await writer.drain()
            self.ends.append("end")
        except ConnectionError:
            self.ends.append("reset")
        finally:
            self.changed.set()
            writer.transport.abort()

    async def until_ended(self) -> str:
        async with asyncio.timeout(TIMEOUT):
            while not self.ends:
                self.changed.clear()
                await self.changed.wait()
        return self.ends[0]


class EchoClient:
    """A client of the echo."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def echo(self, data: bytes) -> bytes:
        self.writer.write(data)
        return await self.receive(len(data))

    async def receive(self, size: int) -> bytes:
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.readexactly(size)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[ChaosProxy]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with server, ChaosProxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


@asynccontextmanager
async def connected(proxy: ChaosProxy) -> AsyncIterator[EchoClient]:
    """A client whose connection through the proxy has forwarded a word both ways."""
    client = EchoClient(*await asyncio.open_connection("127.0.0.1", proxy.port))
    try:
        assert await client.echo(b"hello") == b"hello"
        yield client
    finally:
        client.writer.transport.abort()


async def test_bytes_pass_both_ways_and_the_end_of_a_connection_passes_too(proxy: ChaosProxy, echo: Echo) -> None:
    async with connected(proxy) as client:
        big = bytes(range(256)) * 4096
        assert await client.echo(big) == big
        client.writer.write_eof()
        assert await client.reader.read() == b""
        assert await echo.until_ended() == "end"


async def test_one_direction_stalls_and_nothing_is_lost_when_it_flows_again(proxy: ChaosProxy, echo: Echo) -> None:
    async with connected(proxy) as client:
        proxy.links[-1].down.set(STALLED)
        client.writer.write(b"held")
        async with asyncio.timeout(TIMEOUT):
            while not echo.received.endswith(b"held"):
                await asyncio.sleep(0.01)
        receiving = asyncio.ensure_future(client.receive(4))
        async with connected(proxy):  # a whole exchange on another link, and still nothing here
            assert not receiving.done()
        proxy.links[0].down.set(NORMAL)
        assert await receiving == b"held"


async def test_bytes_arrive_one_by_one(proxy: ChaosProxy, echo: Echo) -> None:
    proxy.set(BYTE_BY_BYTE)
    async with connected(proxy) as client:
        pieces = echo.pieces
        assert await client.echo(b"x" * 200) == b"x" * 200
        assert echo.pieces - pieces > 20  # the reader may find several that have come meanwhile


async def test_a_throttled_connection_passes_everything_in_small_pieces(proxy: ChaosProxy) -> None:
    proxy.set(down=at_rate(2000))
    async with connected(proxy) as client:
        client.writer.write(b"y" * 600)
        while client_received := await client.reader.read(10_000):
            assert len(client_received) <= 400  # never all of it at once
            if (down := proxy.links[-1].down).forwarded == 605:
                break
        assert down.conditions.piece == 200


async def test_a_delay_postpones_everything_and_keeps_the_order(proxy: ChaosProxy) -> None:
    proxy.set(Conditions(delay=0.05))
    async with connected(proxy) as client:
        assert [await client.echo(word) for word in (b"one", b"two")] == [b"one", b"two"]


async def test_a_half_open_connection_hides_that_the_client_left(proxy: ChaosProxy, echo: Echo) -> None:
    async with connected(proxy) as client:
        link = proxy.links[-1]
        link.set(DROPPED)
        client.writer.write(b"into the void")
        client.writer.transport.abort()
    async with connected(proxy):
        assert link in proxy.links
        assert echo.ends == []
        assert b"void" not in echo.received
    link.set(NORMAL)
    assert await echo.until_ended() in ("end", "reset")


async def test_a_reset_is_seen_on_both_sides(proxy: ChaosProxy, echo: Echo) -> None:
    async with connected(proxy) as client:
        proxy.links[-1].reset()
        with pytest.raises(ConnectionResetError):
            await client.receive(1)
        assert await echo.until_ended() == "reset"


async def test_a_reset_may_come_in_the_middle_of_what_is_sent(proxy: ChaosProxy, echo: Echo) -> None:
    async with connected(proxy) as client:
        proxy.links[-1].down.set(replace(NORMAL, reset_after=3))
        client.writer.write(b"abcdef")
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while piece := await client.reader.read(1):
                received += piece
        assert b"abc".startswith(received)
        assert echo.received.endswith(b"abcdef")
        assert await echo.until_ended() == "reset"


async def test_a_cut_ends_the_connection_without_a_close_frame(proxy: ChaosProxy) -> None:
    async with connected(proxy) as client:
        proxy.links[-1].cut()
        assert await client.reader.read() == b""


async def test_connections_are_refused_or_reset_at_once_and_accepted_again(proxy: ChaosProxy) -> None:
    async with connected(proxy) as client:
        await proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await client.echo(b"still") == b"still"
    proxy.listen()
    proxy.resets_newcomers = True
    with pytest.raises(ConnectionResetError):
        async with connected(proxy):
            pass
    proxy.resets_newcomers = False
    async with connected(proxy) as client:
        assert await client.echo(b"again") == b"again"


async def test_a_target_that_is_down_looks_like_a_reset(echo: Echo) -> None:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    async with ChaosProxy(port) as proxy:
        with pytest.raises(ConnectionResetError):
            async with connected(proxy):
                pass
