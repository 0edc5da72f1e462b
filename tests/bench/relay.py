"""Chunk latency and CPU per chunk: many sessions streaming at once, ours against the bare relay."""

import asyncio
import secrets
import statistics
import time
from dataclasses import dataclass
from typing import Final, Literal

import aiohttp
import orjson

from tests.bench.processes import cpu_seconds, running
from tests.stack.running_stack import free_port

SHARED: Final = ("owner", "follower")
AIMS: Final = {
    "ours": "Aim: 1.2",
    "owner": "Aim: 1.5, latency as ours",
    "follower": "Aim: p50 25 ms, p99 60 ms",
}


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


async def _connect(client: aiohttp.ClientSession, port: int, sessions: int) -> list[aiohttp.ClientWebSocketResponse]:
    url = f"http://127.0.0.1:{port}/api/v1/chat/stream"
    users = (f"00000000-0000-4000-8000-{number:012d}" for number in range(sessions))
    return [await client.ws_connect(url, headers={"Authorization": f"Bearer {user}"}, max_msg_size=0) for user in users]


async def _load(owner: int, reader: int, sessions: int, chunks: int, pid: int) -> Figures:
    """Send by the server at port `owner`, and read from the one at port `reader`, whose process is `pid`."""
    latencies: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as client:
        senders = await _connect(client, owner, sessions)
        readers = senders if reader == owner else await _connect(client, reader, sessions)
        before = cpu_seconds(pid)
        frame = {"type": "message", "client_message_id": "bench", "content": "go"}
        for socket in senders:
            await socket.send_json(frame)
        seen = await asyncio.gather(*(_listen(socket, chunks, latencies) for socket in readers))
        used = cpu_seconds(pid) - before
        await asyncio.gather(*(socket.close() for socket in {*senders, *readers}))
    total = sum(seen)
    quantiles = statistics.quantiles(latencies, n=100)
    return Figures(total, quantiles[49], quantiles[98], used / total * 1e6)


Kind = Literal["bare", "ours", "owner", "follower"]
"""`owner` and `follower` are two instances of ours around one Redis."""


def measure(kind: Kind, sessions: int, chunks: int, rate: float, redis: str | None = None) -> Figures:
    """One run of one server against a fresh upstream."""
    shared = ("--redis", redis, "--deployment", secrets.token_hex(4)) if redis and kind in SHARED else ()
    upstream, owner, follower = free_port(), free_port(), free_port()
    options = ("--rate", str(rate), "--chunks", str(chunks), "--together", str(sessions))
    server = ("tests.bench.servers", "bare" if kind == "bare" else "ours")
    target = ("--upstream", f"http://127.0.0.1:{upstream}")
    with (
        running("tests.bench.upstream", *options, port=upstream),
        running(*server, *target, *shared, port=owner) as pid,
    ):
        if kind != "follower":
            return asyncio.run(_load(owner, owner, sessions, chunks, pid))
        with running("tests.bench.servers", "follower", *target, *shared, port=follower) as following:
            return asyncio.run(_load(owner, follower, sessions, chunks, following))


def main(sessions: int, chunks: int, rate: float, rounds: int, redis: str | None) -> None:
    """Print the figures of all servers, `rounds` times in turn, and the targets."""
    kinds: tuple[Kind, ...] = ("bare", "ours", *SHARED) if redis else ("bare", "ours")
    results: dict[Kind, list[Figures]] = {kind: [] for kind in kinds}
    print(f"{sessions} sessions, {rate:g} chunks/s each, {chunks} chunks")
    print(f"{'':>8} {'p50 ms':>8} {'p99 ms':>8} {'µs CPU/chunk':>13}")
    for _ in range(rounds):
        for kind, runs in results.items():
            figures = measure(kind, sessions, chunks, rate, redis)
            runs.append(figures)
            print(f"{kind:>8} {figures.p50:8.1f} {figures.p99:8.1f} {figures.cpu_per_chunk:13.1f}", flush=True)
    bare = statistics.median(figures.cpu_per_chunk for figures in results["bare"])
    for kind, runs in results.items():
        if kind != "bare":
            ratio = statistics.median(figures.cpu_per_chunk for figures in runs) / bare
            p50, p99 = (statistics.median(getattr(figures, name) for figures in runs) for name in ("p50", "p99"))
            print(f"{kind:>8}: {ratio:.2f} times the CPU of bare, p50 {p50:.1f} ms, p99 {p99:.1f} ms. {AIMS[kind]}")
