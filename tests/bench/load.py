"""More sessions than two cores carry easily: latency, memory, and whether everything else still works meanwhile.

A process of its own asks `/ready` and a REST endpoint while the streams run. Nothing may be lost: each stream's deltas
are the text of its terminal event, and have all chunks.
"""

import asyncio
import json
import math
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import orjson

from server.sessions.events.codec import TERMINAL
from tests.bench.flame import recorded
from tests.bench.processes import cpu_seconds, resident_bytes, running
from tests.bench.streams import LISTEN_SECONDS, connect, http_client, text_so_far, upstream_running, user_token
from tests.bench.table import Row, at_most
from tests.stack.running_stack import free_port

P99_MS: Final = 150.0
REST_P99_MS: Final = 250.0
ANSWER_SECONDS: Final = 120.0


@dataclass(slots=True)
class Load:
    """What happened under one load. Milliseconds, MiB, seconds of processor time."""

    latencies: list[float] = field(default_factory=list)
    incomplete: int = 0
    """Streams whose text is not whole, or whose turn did not complete."""
    chunks: int = 0
    frames: int = 0
    grown: float = 0.0
    cpu: float = 0.0
    ready: list[float] = field(default_factory=list)
    rest: list[float] = field(default_factory=list)
    refused: int = 0
    """Requests that were not answered with 200."""

    def line(self, name: str) -> str:
        p50, p99 = percentile(self.latencies, 50), percentile(self.latencies, 99)
        return (
            f"{name}: p50 {p50:.0f} ms, p99 {p99:.0f} ms, {self.cpu / self.chunks * 1e6:.0f} µs CPU/chunk, "
            f"{self.chunks / self.frames:.1f} chunks/frame, +{self.grown:.0f} MiB, "
            f"/ready p99 {percentile(self.ready, 99):.0f} ms, REST p99 {percentile(self.rest, 99):.0f} ms of "
            f"{len(self.rest)}, {self.refused} refused, {self.incomplete} streams incomplete"
        )


def percentile(values: list[float], percent: int) -> float:
    """Of at least two values; the only one; or not a number if nothing was measured, which meets no aim."""
    if len(values) > 1:
        return statistics.quantiles(values, n=100)[percent - 1]
    return values[0] if values else math.nan


def main(sessions: int, chunks: int, rate: float) -> list[Row]:
    """Print the figures at this rate and at twice this rate."""
    print(f"{sessions} sessions, {chunks} chunks each")
    normal, twice = measure(sessions, chunks, rate), measure(sessions, chunks * 2, rate * 2)
    print(normal.line(f"{rate:g} chunks/s"))
    print(twice.line(f"{2 * rate:g} chunks/s"), flush=True)
    name, faster = f"{sessions:,} × {rate:g}/s", f"{sessions:,} × {rate * 2:g}/s"
    return [
        at_most(f"{name}: latency p99", percentile(normal.latencies, 99), P99_MS, "ms"),
        at_most(f"{name}: REST p99", percentile(normal.rest, 99), REST_P99_MS, "ms"),
        at_most(f"{name}: streams that are not whole", normal.incomplete, 0),
        Row(f"{faster}: latency p99", f"{percentile(twice.latencies, 99):,.0f} ms"),
        Row(f"{faster}: memory grows by", f"{twice.grown:,.0f} MiB"),
        at_most(f"{faster}: REST p99", percentile(twice.rest, 99), REST_P99_MS, "ms"),
        at_most(f"{faster}: /ready p99", percentile(twice.ready, 99), REST_P99_MS, "ms"),
        at_most(f"{faster}: requests refused", twice.refused, 0),
        at_most(f"{faster}: streams that are not whole", twice.incomplete, 0),
    ]


def main_with_redis(sessions: int, chunks: int, rate: float, redis: str) -> list[Row]:
    """Print the figures of an instance that replicates its logs to this Redis."""
    load = measure(sessions, chunks, rate, redis)
    print(load.line(f"{sessions} sessions, {rate:g} chunks/s each, with Redis"), flush=True)
    name = f"{sessions:,} × {rate:g}/s with Redis"
    return [
        at_most(f"{name}: latency p99", percentile(load.latencies, 99), P99_MS, "ms"),
        at_most(f"{name}: streams that are not whole", load.incomplete, 0),
    ]


def measure(sessions: int, chunks: int, rate: float, redis: str | None = None) -> Load:
    """One run of our server against a fresh upstream, with replicas in Redis where one is named."""
    port = free_port()
    shared = ("--redis", redis, "--deployment", secrets.token_hex(4)) if redis else ()
    with (
        upstream_running(sessions, chunks, rate) as upstream,
        running("tests.bench.servers", "ours", "--upstream", upstream, *shared, port=port) as pid,
    ):
        return asyncio.run(_stream(port, pid, sessions, chunks))


async def _stream(port: int, pid: int, sessions: int, chunks: int) -> Load:
    load = Load()
    async with http_client() as client:
        sockets = await connect(client, port, sessions)
        used = cpu_seconds(pid)
        memory = [resident_bytes(pid)]
        sampling = asyncio.create_task(_sample(memory, pid))
        with recorded(pid), _asking(port, load):
            for number, socket in enumerate(sockets):
                await socket.send_json({"type": "message", "client_message_id": f"load-{number}", "content": "go"})
            whole = await asyncio.gather(*(_follow(socket, chunks, load) for socket in sockets))
        load.cpu = cpu_seconds(pid) - used
        sampling.cancel()
        load.grown = (max(memory) - memory[0]) / 2**20
        load.incomplete = whole.count(False)
        await asyncio.gather(*(socket.close() for socket in sockets))
    return load


async def _follow(socket: aiohttp.ClientWebSocketResponse, chunks: int, load: Load) -> bool:
    """Read to the turn's end. Returns True if what was shown is its text, and all chunks are there."""
    text, end = "", None
    with suppress(TimeoutError):
        async with asyncio.timeout(LISTEN_SECONDS):
            async for message in socket:
                now = time.monotonic_ns()
                frame = orjson.loads(message.data)
                if frame["type"] == "message.delta":
                    text += frame["text"]
                    load.frames += 1
                    load.latencies.extend((now - int(at)) / 1e6 for at in frame["text"].split())
                elif frame["type"] == "ready":
                    text = text_so_far(frame)
                elif frame["type"] in TERMINAL:
                    end = frame
                    break
    load.chunks += len(text.split())
    if end is None or end["type"] != "turn.completed":
        return False
    return len(text.split()) == chunks and text == end["turn"]["message"]["content"]


async def _sample(memory: list[int], pid: int) -> None:
    while True:
        await asyncio.sleep(0.1)
        memory.append(resident_bytes(pid))


@contextmanager
def _asking(port: int, load: Load) -> Iterator[None]:
    """A process that asks until the end of the block."""
    command = [sys.executable, "-m", "tests.bench.asker", "--port", str(port), "--token", user_token(0)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
            answered = json.loads(process.communicate("", timeout=ANSWER_SECONDS)[0])
        finally:
            process.kill()
    load.ready, load.rest, load.refused = answered["ready"], answered["rest"], answered["refused"]
