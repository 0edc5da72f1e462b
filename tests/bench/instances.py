"""What two instances around one Redis spend per chunk, against one alone, and what Redis spends."""

import asyncio
import secrets
import statistics
from dataclasses import dataclass
from typing import Any, Final

import redis as redis_client

from tests.bench.processes import cpu_seconds, running
from tests.bench.streams import connect, http_client, listen, measure, upstream_running
from tests.bench.table import Row, at_least, at_most, ratio, times
from tests.stack.running_stack import free_port

AIM: Final = 1.1
TOGETHER: Final = 1.8
FOLLOWER_P50_MS: Final = 25.0
FOLLOWER_P99_MS: Final = 60.0
ANSWER_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Pair:
    """The owner of all sessions, the follower that all clients read from, and their Redis: µs of CPU per chunk."""

    owner: float
    follower: float
    redis: float
    p50: float
    p99: float


def main(sessions: int, chunks: int, rate: float, rounds: int, redis: str) -> list[Row]:
    """Print the figures of one instance alone and of two around this Redis, `rounds` times in turn."""
    print(f"{sessions} sessions, {rate:g} chunks/s each, {chunks} chunks; µs of CPU per chunk")
    alone, pairs = [], []
    for _ in range(rounds):
        alone.append(measure("ours", sessions, chunks, rate))
        print(f"    alone {alone[-1].cpu_per_chunk:6.1f}", flush=True)
        pairs.append(one := measure_pair(sessions, chunks, rate, redis))
        print(f"    owner {one.owner:6.1f}  follower {one.follower:6.1f}  Redis {one.redis:6.1f}", end="  ")
        print(f"p50 {one.p50:.1f} ms, p99 {one.p99:.1f} ms at the follower", flush=True)
    single = statistics.median(one.cpu_per_chunk for one in alone)
    owner, follower, service, p50, p99 = (
        statistics.median(getattr(one, name) for one in pairs) for name in ("owner", "follower", "redis", "p50", "p99")
    )
    print(f"owner {times(owner, single):.2f} and follower {times(follower, single):.2f} times one alone. Aim: {AIM}")
    return [
        ratio("CPU per chunk of an owner with Redis against one alone", owner, single, AIM, "µs"),
        ratio("CPU per chunk of a follower against one alone", follower, single, AIM, "µs"),
        at_least(
            "What two instances carry against one, on cores of their own", 2 * times(single, owner), TOGETHER, "times"
        ),
        Row("Redis's own CPU per chunk", f"{service:.1f} µs"),
        at_most("Latency at a follower, p50", p50, FOLLOWER_P50_MS, "ms"),
        at_most("Latency at a follower, p99", p99, FOLLOWER_P99_MS, "ms"),
    ]


def measure_pair(sessions: int, chunks: int, rate: float, redis: str) -> Pair:
    """One run of two instances. All messages go to the owner, whose own connections read, too."""
    owner, follower = free_port(), free_port()
    shared = ("--redis", redis, "--deployment", secrets.token_hex(4))
    with upstream_running(sessions, chunks, rate) as upstream:
        target = ("--upstream", upstream, *shared)
        with (
            running("tests.bench.servers", "ours", *target, port=owner) as owning,
            running("tests.bench.servers", "follower", *target, port=follower) as following,
            redis_client.Redis.from_url(redis, socket_timeout=ANSWER_SECONDS) as service,
        ):
            return asyncio.run(_stream(owner, follower, sessions, chunks, (owning, following), service))


async def _stream(owner: int, follower: int, sessions: int, chunks: int, pids: tuple[int, int], service: Any) -> Pair:
    latencies: list[float] = []
    async with http_client() as client:
        senders, readers = await connect(client, owner, sessions), await connect(client, follower, sessions)
        before = _used(pids, service)
        for number, socket in enumerate(senders):
            await socket.send_json({"type": "message", "client_message_id": f"pair-{number}", "content": "go"})
        at_owner = [asyncio.create_task(listen(socket, chunks, [])) for socket in senders]
        seen = sum(await asyncio.gather(*(listen(socket, chunks, latencies) for socket in readers)))
        await asyncio.gather(*at_owner)
        used = [(now - then) / seen * 1e6 for now, then in zip(_used(pids, service), before, strict=True)]
        await asyncio.gather(*(socket.close() for socket in (*senders, *readers)))
    quantiles = statistics.quantiles(latencies, n=100)
    return Pair(used[0], used[1], used[2], quantiles[49], quantiles[98])


def _used(pids: tuple[int, int], service: Any) -> list[float]:
    """Seconds of processor time of both instances and of Redis."""
    cpu = service.info("cpu")
    return [*(cpu_seconds(pid) for pid in pids), cpu["used_cpu_user"] + cpu["used_cpu_sys"]]
