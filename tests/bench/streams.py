"""Many sessions that stream at once: the clients, and what is measured of the servers meanwhile.

The upstream writes the time into each chunk, so that the clients can compute its age.
"""

import asyncio
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import aiohttp
import orjson

from tests.bench.flame import recorded
from tests.bench.processes import cpu_seconds, running
from tests.stack.running_stack import free_port

Kind = Literal["bare", "ours", "owner", "follower"]
"""`owner` and `follower` are two instances of ours around one Redis."""
SHARED: Final = ("owner", "follower")
LISTEN_SECONDS: Final = 120.0
"""How long a client waits for its stream's last chunk."""
Sockets = list[aiohttp.ClientWebSocketResponse]


@dataclass(frozen=True, slots=True)
class Figures:
    """One server under one load. Latencies in milliseconds, CPU in microseconds of the server's process."""

    chunks: int
    p50: float
    p99: float
    cpu_per_chunk: float


def figures(latencies: Sequence[float], chunks: int, cpu: float) -> Figures:
    """From the milliseconds of each chunk, and `cpu` seconds."""
    quantiles = statistics.quantiles(latencies, n=100)
    return Figures(chunks, quantiles[49], quantiles[98], cpu / chunks * 1e6)


def user_token(number: int) -> str:
    """The token of a user of the benchmark's server: for it any token is a user's id."""
    return f"00000000-0000-4000-8000-{number:012d}"


async def listen(socket: aiohttp.ClientWebSocketResponse, chunks: int, latencies: list[float]) -> int:
    """Read until `chunks` chunks came; returns how many. A frame may hold several: each of its words is one chunk.

    Raises TimeoutError after LISTEN_SECONDS, and ConnectionError if the socket ends before.
    """
    seen = 0
    async with asyncio.timeout(LISTEN_SECONDS):
        async for message in socket:
            now = time.monotonic_ns()
            written = new_chunks(orjson.loads(message.data), seen)
            seen += len(written)
            latencies.extend((now - int(at)) / 1e6 for at in written)
            if seen >= chunks:
                return seen
    raise ConnectionError(f"the socket ended after {seen} of {chunks} chunks")


def new_chunks(frame: dict[str, Any], seen: int) -> list[str]:
    """The chunks of a stream that a frame brings after the first `seen` ones."""
    match frame.get("type"):
        case "message.delta":
            return str(frame["text"]).split()
        case "ready":
            return text_so_far(frame).split()[seen:]
        case None if frame.get("message_type") == "assistant_message":  # the bare relay passes Letta's on
            return str(frame["content"]).split()
    return []


def text_so_far(ready: dict[str, Any]) -> str:
    """The text of the turn that runs as of a `ready`. One may come in mid-stream: the log begins a new epoch when an
    instance takes the session over."""
    return str(ready["turn"]["text"]) if ready["turn"] else ""


@asynccontextmanager
async def http_client() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without limits of its own."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as client:
        yield client


async def connect(client: aiohttp.ClientSession, port: int, sessions: int) -> Sockets:
    url = f"http://127.0.0.1:{port}/api/v1/chat/stream"
    headers = ({"Authorization": f"Bearer {user_token(number)}"} for number in range(sessions))
    return [await client.ws_connect(url, headers=one, max_msg_size=0, compress=0) for one in headers]


async def stream(owner: int, reader: int, sessions: int, chunks: int, pid: int) -> Figures:
    """Send by the server at port `owner`, and read from the one at port `reader`, whose process is `pid`."""
    latencies: list[float] = []
    async with http_client() as client:
        senders = await connect(client, owner, sessions)
        readers = senders if reader == owner else await connect(client, reader, sessions)
        with recorded(pid):
            before = cpu_seconds(pid)
            frame = {"type": "message", "client_message_id": "bench", "content": "go"}
            for socket in senders:
                await socket.send_json(frame)
            seen = await asyncio.gather(*(listen(socket, chunks, latencies) for socket in readers))
            used = cpu_seconds(pid) - before
        await asyncio.gather(*(socket.close() for socket in {*senders, *readers}))
    return figures(latencies, sum(seen), used)


@contextmanager
def upstream_running(sessions: int, chunks: int, rate: float) -> Iterator[str]:
    """The address of a model whose streams begin when all sessions have joined."""
    port = free_port()
    options = ("--rate", str(rate), "--chunks", str(chunks), "--together", str(sessions))
    with running("tests.bench.upstream", *options, port=port):
        yield f"http://127.0.0.1:{port}"


def measure(kind: Kind, sessions: int, chunks: int, rate: float, redis: str | None = None) -> Figures:
    """One run of one server against a fresh upstream."""
    shared = ("--redis", redis, "--deployment", secrets.token_hex(4)) if redis and kind in SHARED else ()
    owner, follower = free_port(), free_port()
    server = ("tests.bench.servers", "bare" if kind == "bare" else "ours")
    with upstream_running(sessions, chunks, rate) as upstream:
        target = ("--upstream", upstream)
        with running(*server, *target, *shared, port=owner) as pid:
            if kind != "follower":
                return asyncio.run(stream(owner, owner, sessions, chunks, pid))
            with running("tests.bench.servers", "follower", *target, *shared, port=follower) as following:
                return asyncio.run(stream(owner, follower, sessions, chunks, following))
