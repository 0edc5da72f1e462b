"""Acknowledged and written bytes of a TCP connection, and its buffers, on asyncio's transports and on uvloop's."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from server.streaming.tcp import UNSENT_BYTES, acknowledged_bytes, limit_buffers, written_bytes


@asynccontextmanager
async def line() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """A server's end as a transport, and a client's end that reads nothing by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        client.setblocking(False)
        server, _ = listener.accept()
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, server)
        try:
            yield transport, client
        finally:
            transport.abort()


async def _counts_acknowledged_bytes() -> None:
    async with line() as (transport, client):
        before = written_bytes(transport)
        assert before == acknowledged_bytes(transport)
        transport.write(b"x" * 100_000)
        assert before is not None
        assert written_bytes(transport) == before + 100_000
        assert (acknowledged_bytes(transport) or 0) < before + 100_000
        left = 100_000
        while left:
            left -= len(await asyncio.get_running_loop().sock_recv(client, left))
        while acknowledged_bytes(transport) != written_bytes(transport):  # noqa: ASYNC110 - the kernel sends no event
            await asyncio.sleep(0)


async def _limits_buffers() -> None:
    async with line() as (transport, _):
        limit_buffers(transport)
        assert transport.get_write_buffer_limits()[1] == UNSENT_BYTES
        transport.write(b"x" * 1_000_000)
        await asyncio.sleep(0)
        assert transport.get_write_buffer_size() > 900_000  # what is not in the kernel


async def _returns_none_after_the_end() -> None:
    async with line() as (transport, _):
        transport.abort()
        while acknowledged_bytes(transport) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert written_bytes(transport) is None
    assert (acknowledged_bytes(None), written_bytes(None)) == (None, None)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("claim", [_counts_acknowledged_bytes, _limits_buffers, _returns_none_after_the_end])
def test_a_line(claim: Callable[[], object], new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(claim())  # type: ignore[arg-type]
