"""What a server can know of its TCP line, on asyncio's transports and on uvloop's."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from server.streaming.tcp import UNSENT_BYTES, arrived, keep_short, written


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


async def _tells_what_has_arrived() -> None:
    async with line() as (transport, client):
        before = written(transport)
        assert before == arrived(transport)
        transport.write(b"x" * 100_000)
        assert before is not None
        assert written(transport) == before + 100_000
        assert (arrived(transport) or 0) < before + 100_000
        left = 100_000
        while left:
            left -= len(await asyncio.get_running_loop().sock_recv(client, left))
        while arrived(transport) != written(transport):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0)


async def _keeps_little() -> None:
    async with line() as (transport, _):
        keep_short(transport)
        assert transport.get_write_buffer_limits()[1] == UNSENT_BYTES
        transport.write(b"x" * 1_000_000)
        await asyncio.sleep(0)
        assert transport.get_write_buffer_size() > 900_000  # what is not in the kernel


async def _tells_nothing_of_a_line_that_is_gone() -> None:
    async with line() as (transport, _):
        transport.abort()
        while arrived(transport) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert written(transport) is None
    assert (arrived(None), written(None)) == (None, None)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("claim", [_tells_what_has_arrived, _keeps_little, _tells_nothing_of_a_line_that_is_gone])
def test_a_line(claim: Callable[[], object], new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(claim())  # type: ignore[arg-type]
