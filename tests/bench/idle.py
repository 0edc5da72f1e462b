"""Idle connections: memory of each, ours, with its own user's session, against bare aiohttp sockets; and what ten
thousand of them cost one process."""

import asyncio
import time
from typing import Final

import aiohttp

from tests.bench.flame import recorded
from tests.bench.processes import allow_open_files, cpu_seconds, resident_bytes, running
from tests.bench.streams import Sockets, http_client, user_token
from tests.bench.table import Row, at_most, ratio, times
from tests.stack.running_stack import free_port

WARM_UP: Final = 200
MANY_MIB: Final = 200
MANY_CPU_PERCENT: Final = 3.0


async def _open(client: aiohttp.ClientSession, port: int, first: int, number: int) -> Sockets:
    url = f"http://127.0.0.1:{port}/api/v1/chat/stream"
    headers = ({"Authorization": f"Bearer {user_token(one)}"} for one in range(first, first + number))
    return [await client.ws_connect(url, headers=one, heartbeat=None) for one in headers]


async def _grow(port: int, pid: int, connections: int) -> float:
    """KiB of the server's memory per connection, after a warm-up that is not counted."""
    async with http_client() as client:
        sockets = await _open(client, port, 0, WARM_UP)
        await asyncio.sleep(1)
        before = resident_bytes(pid)
        sockets += await _open(client, port, WARM_UP, connections)
        await asyncio.sleep(1)
        grown = resident_bytes(pid) - before
        await asyncio.gather(*(socket.close() for socket in sockets))
    return grown / connections / 1024


def main(connections: int) -> list[Row]:
    """Print both servers and their ratio."""
    results = {}
    for kind in ("bare", "ours"):
        port = free_port()
        with running("tests.bench.servers", kind, "--upstream", "http://127.0.0.1:9", port=port) as pid:
            results[kind] = asyncio.run(_grow(port, pid, connections))
            print(f"{kind:>6}: {results[kind]:6.1f} KiB per idle connection", flush=True)
    print(f"ours / bare: {times(results['ours'], results['bare']):.2f}")
    return [ratio("Memory of an idle connection against bare aiohttp", results["ours"], results["bare"], 1.2, "KiB")]


def main_many(connections: int, seconds: float) -> list[Row]:
    """Print what so many idle sockets add to one process, in memory and in processor time for their keep-alive."""
    allow_open_files(connections + 1_000)
    port = free_port()
    with running("tests.bench.servers", "ours", "--upstream", "http://127.0.0.1:9", port=port) as pid:
        grown, share, left = asyncio.run(_hold(port, pid, connections, seconds))
    print(f"{connections:,} idle sockets: {grown:.0f} MiB, keep-alive {share:.1%} of a core, {left:,} still open")
    return [
        at_most(f"Memory of {connections:,} idle sockets", grown, MANY_MIB, "MiB"),
        at_most(f"Keep-alive of {connections:,} idle sockets", share * 100, MANY_CPU_PERCENT, "% of a core"),
    ]


async def _hold(port: int, pid: int, connections: int, seconds: float) -> tuple[float, float, int]:
    """MiB that the sockets add; the share of a core that the server uses while they are idle for so long, and answer
    its pings; and how many of them are open then."""
    async with http_client() as client:
        sockets = await _open(client, port, 0, WARM_UP)
        await asyncio.sleep(1)
        before = resident_bytes(pid)
        sockets += await _open(client, port, WARM_UP, connections)
        readers = [asyncio.create_task(_answer_pings(socket)) for socket in sockets]
        await asyncio.sleep(1)
        grown = (resident_bytes(pid) - before) / 2**20
        print(f"{connections:,} sockets are open", flush=True)
        with recorded(pid):
            used, began = cpu_seconds(pid), time.monotonic()
            await asyncio.sleep(seconds)
            share = (cpu_seconds(pid) - used) / (time.monotonic() - began)
        left = sum(not socket.closed for socket in sockets[WARM_UP:])
        for reader in readers:
            reader.cancel()
    return grown, share, left


async def _answer_pings(socket: aiohttp.ClientWebSocketResponse) -> None:
    async for _ in socket:
        pass
