"""Chunk latency and CPU per chunk: many sessions streaming at once, ours against the bare relay."""

import statistics
from typing import Final

from tests.bench.streams import SHARED, Figures, Kind, measure
from tests.bench.table import Row, ratio, times

AIMS: Final = {
    "ours": "Aim: 1.2",
    "owner": "Aim: 1.5, latency as ours",
    "follower": "Aim: p50 25 ms, p99 60 ms",
}


def main(sessions: int, chunks: int, rate: float, rounds: int, redis: str | None) -> list[Row]:
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
            cpu = statistics.median(figures.cpu_per_chunk for figures in runs)
            p50, p99 = (statistics.median(getattr(figures, name) for figures in runs) for name in ("p50", "p99"))
            print(f"{kind:>8}: {times(cpu, bare):.2f} times the CPU of bare, ", end="")
            print(f"p50 {p50:.1f} ms, p99 {p99:.1f} ms. {AIMS[kind]}")
    ours = statistics.median(figures.cpu_per_chunk for figures in results["ours"])
    return [ratio("CPU per chunk against a bare relay", ours, bare, 1.2, "µs")]
