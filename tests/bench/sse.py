"""CPU per chunk of an event stream against a WebSocket: the same messages, sent over REST, read in both ways."""

import asyncio
import statistics
import time
from typing import Final

import aiohttp
import orjson

from tests.bench.flame import recorded
from tests.bench.processes import cpu_seconds, running
from tests.bench.streams import (
    LISTEN_SECONDS,
    Figures,
    connect,
    figures,
    http_client,
    listen,
    new_chunks,
    upstream_running,
    user_token,
)
from tests.bench.table import Row, ratio, times
from tests.stack.running_stack import free_port

AIM: Final = 1.15


def main(sessions: int, chunks: int, rate: float, rounds: int) -> list[Row]:
    """Print the figures of both, `rounds` times in turn."""
    results: dict[str, list[Figures]] = {"WebSocket": [], "SSE": []}
    print(f"{sessions} sessions, {rate:g} chunks/s each, {chunks} chunks")
    print(f"{'':>10} {'p50 ms':>8} {'p99 ms':>8} {'µs CPU/chunk':>13}")
    for _ in range(rounds):
        for transport, runs in results.items():
            one = measure(transport, sessions, chunks, rate)
            runs.append(one)
            print(f"{transport:>10} {one.p50:8.1f} {one.p99:8.1f} {one.cpu_per_chunk:13.1f}", flush=True)
    socket, events = (statistics.median(one.cpu_per_chunk for one in runs) for runs in results.values())
    print(f"SSE costs {times(events, socket):.2f} times a WebSocket per chunk. Aim: {AIM}")
    return [ratio("CPU per chunk of SSE against a WebSocket", events, socket, AIM, "µs")]


def measure(transport: str, sessions: int, chunks: int, rate: float) -> Figures:
    """One run of our server against a fresh upstream."""
    port = free_port()
    with (
        upstream_running(sessions, chunks, rate) as upstream,
        running("tests.bench.servers", "ours", "--upstream", upstream, port=port) as pid,
    ):
        return asyncio.run(_stream(transport, port, pid, sessions, chunks))


async def _stream(transport: str, port: int, pid: int, sessions: int, chunks: int) -> Figures:
    """CPU is counted from when all messages are accepted."""
    latencies: list[float] = []
    async with http_client() as client:
        if transport == "SSE":
            streams = [await _open(client, port, number) for number in range(sessions)]
            reading = [asyncio.create_task(_listen_to_events(one, chunks, latencies)) for one in streams]
        else:
            sockets = await connect(client, port, sessions)
            reading = [asyncio.create_task(listen(one, chunks, latencies)) for one in sockets]
        for number in range(sessions):
            await _send(client, port, number)
        with recorded(pid):
            before = cpu_seconds(pid)
            seen = await asyncio.gather(*reading)
            used = cpu_seconds(pid) - before
    return figures(latencies, sum(seen), used)


async def _send(client: aiohttp.ClientSession, port: int, number: int) -> None:
    headers = {"Authorization": f"Bearer {user_token(number)}", "Prefer": "respond-async"}
    url = f"http://127.0.0.1:{port}/api/v1/chat/message"
    async with client.post(url, json={"content": "go"}, headers=headers) as response:
        assert response.status == 202, await response.text()


async def _open(client: aiohttp.ClientSession, port: int, number: int) -> aiohttp.ClientResponse:
    url = f"http://127.0.0.1:{port}/api/v1/chat/events"
    response = await client.get(url, headers={"Authorization": f"Bearer {user_token(number)}"})
    assert response.status == 200, await response.text()
    return response


async def _listen_to_events(response: aiohttp.ClientResponse, chunks: int, latencies: list[float]) -> int:
    """What `listen` does, from an event stream."""
    seen = 0
    async with asyncio.timeout(LISTEN_SECONDS), response:
        async for line in response.content:
            if line.startswith(b"data: "):
                now = time.monotonic_ns()
                written = new_chunks(orjson.loads(line[6:]), seen)
                seen += len(written)
                latencies.extend((now - int(at)) / 1e6 for at in written)
                if seen >= chunks:
                    return seen
    raise ConnectionError(f"the events ended after {seen} of {chunks} chunks")
