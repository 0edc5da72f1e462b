"""Chunk latency and CPU per chunk: many sessions streaming at once, ours against the bare relay."""

import asyncio
import statistics
import time
from dataclasses import dataclass

import aiohttp
import orjson

from tests.bench.processes import cpu_seconds, running
from tests.stack.running_stack import free_port


@dataclass(frozen=True, slots=True)
class Figures:
    """One server under one load. Latencies in milliseconds, CPU in microseconds of the server's process."""

    chunks: int
    p50: float
    p99: float
    cpu_per_chunk: float


async def _listen(socket: aiohttp.ClientWebSocketResponse, chunks: int, latencies: list[float]) -> int:
    """Read until `chunks` chunks came. A frame may hold several: each of its words is one chunk."""
    seen = 0
    async for message in socket:
        now = time.monotonic_ns()
        frame = orjson.loads(message.data)
        text = frame.get("text") or (frame.get("content") if frame.get("message_type") == "assistant_message" else None)
        if isinstance(text, str) and frame.get("type", "message.delta") == "message.delta":
            written = text.split()
            seen += len(written)
            latencies.extend((now - int(at)) / 1e6 for at in written)
        if seen >= chunks:
            break
    return seen


async def _load(port: int, sessions: int, chunks: int, pid: int) -> Figures:
    latencies: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as client:
        url = f"http://127.0.0.1:{port}/api/v1/chat/stream"
        sockets = [
            await client.ws_connect(
                url, headers={"Authorization": f"Bearer 00000000-0000-4000-8000-{n:012d}"}, max_msg_size=0
            )
            for n in range(sessions)
        ]
        before = cpu_seconds(pid)
        frame = {"type": "message", "client_message_id": "bench", "content": "go"}
        for socket in sockets:
            await socket.send_json(frame)
        seen = await asyncio.gather(*(_listen(socket, chunks, latencies) for socket in sockets))
        used = cpu_seconds(pid) - before
        await asyncio.gather(*(socket.close() for socket in sockets))
    total = sum(seen)
    quantiles = statistics.quantiles(latencies, n=100)
    return Figures(total, quantiles[49], quantiles[98], used / total * 1e6)


def measure(kind: str, sessions: int, chunks: int, rate: float, redis: str | None = None) -> Figures:
    """One run of one server against a fresh upstream."""
    through_redis = ("--redis", redis) if redis else ()
    upstream, port = free_port(), free_port()
    options = ("--rate", str(rate), "--chunks", str(chunks), "--together", str(sessions))
    with (
        running("tests.bench.upstream", *options, port=upstream),
        running(
            "tests.bench.servers", kind, "--upstream", f"http://127.0.0.1:{upstream}", *through_redis, port=port
        ) as pid,
    ):
        return asyncio.run(_load(port, sessions, chunks, pid))


def main(sessions: int, chunks: int, rate: float, rounds: int, redis: str | None) -> None:
    """Print the servers side by side, `rounds` times in turn, and the ratios of the medians."""
    kinds = ("bare", "ours", "redis") if redis else ("bare", "ours")
    results: dict[str, list[Figures]] = {kind: [] for kind in kinds}
    print(f"{sessions} sessions, {rate:g} chunks/s each, {chunks} chunks")
    print(f"{'':>6} {'p50 ms':>8} {'p99 ms':>8} {'µs CPU/chunk':>13}")
    for _ in range(rounds):
        for kind, runs in results.items():
            figures = (
                measure("ours", sessions, chunks, rate, redis)
                if kind == "redis"
                else measure(kind, sessions, chunks, rate)
            )
            runs.append(figures)
            print(f"{kind:>6} {figures.p50:8.1f} {figures.p99:8.1f} {figures.cpu_per_chunk:13.1f}", flush=True)
    medians = {kind: statistics.median(f.cpu_per_chunk for f in runs) for kind, runs in results.items()}
    print(f"CPU per chunk, ours / bare: {medians['ours'] / medians['bare']:.2f}")
    if redis:
        print(f"CPU per chunk, ours with Redis / bare: {medians['redis'] / medians['bare']:.2f}")
