"""Memory per idle connection: ours, each with its own user's session, against bare aiohttp sockets."""

import asyncio

import aiohttp

from tests.bench.processes import resident_bytes, running
from tests.stack.running_stack import free_port


async def _grow(port: int, pid: int, connections: int) -> float:
    """KiB of the server's memory per connection, after a warm-up that is not counted."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        url, sockets = f"http://127.0.0.1:{port}/api/v1/chat/stream", []
        for number in range(200 + connections):
            if number == 200:
                await asyncio.sleep(1)
                before = resident_bytes(pid)
            token = f"00000000-0000-4000-8000-{number:012d}"
            sockets.append(await client.ws_connect(url, headers={"Authorization": f"Bearer {token}"}, heartbeat=None))
        await asyncio.sleep(1)
        grown = resident_bytes(pid) - before
        await asyncio.gather(*(socket.close() for socket in sockets))
    return grown / connections / 1024


def main(connections: int) -> None:
    """Print both servers and their ratio."""
    results = {}
    for kind in ("bare", "ours"):
        port = free_port()
        with running("tests.bench.servers", kind, "--upstream", "http://127.0.0.1:9", port=port) as pid:
            results[kind] = asyncio.run(_grow(port, pid, connections))
            print(f"{kind:>6}: {results[kind]:6.1f} KiB per idle connection", flush=True)
    print(f"ours / bare: {results['ours'] / results['bare']:.2f}")
