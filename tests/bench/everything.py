"""All benchmarks in one run, shorter than each for itself, and their figures as one table.

Those without services run first, on a quiet machine; then the tests' stack starts, unless it runs.
"""

import time
import traceback
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

from tests.bench import (
    first_token,
    growth,
    idle,
    instances,
    letta,
    load,
    registration,
    relay,
    specified_stack,
    sse,
    turn,
)
from tests.bench.processes import deadline, machine
from tests.bench.stack import redis_at
from tests.bench.table import Row, as_markdown, as_text
from tests.conftest import shared_stack

Benchmark = Callable[[], list[Row]]
SESSIONS, CHUNKS, RATE, ROUNDS = 200, 80, 20.0, 3
LOAD_CHUNKS: Final = 800
"""40 s: longer than the deadline of a ping (35 s) and than three leases (12 s each), so that both must be kept."""
LONGEST_SECONDS: Final = 420.0
"""A benchmark that takes longer hangs, and is stopped: all of them together take twelve minutes."""


def _redis() -> list[Row]:
    with redis_at(None) as url:
        rows = instances.main(SESSIONS, CHUNKS, RATE, ROUNDS, url)
        return rows + load.main_with_redis(600, CHUNKS, RATE, url)


ALONE: Final[Mapping[str, Benchmark]] = {
    "relay": partial(relay.main, SESSIONS, 200, RATE, ROUNDS, None),
    "specified": partial(specified_stack.main, 100, CHUNKS, RATE, 1),
    "sse": partial(sse.main, SESSIONS, CHUNKS, RATE, ROUNDS),
    "load": partial(load.main, 1000, LOAD_CHUNKS, RATE),
    "idle": partial(idle.main, 1000),
    "idle-many": partial(idle.main_many, 10_000, 30.0),
}
ON_THE_STACK: Final[Mapping[str, Benchmark]] = {
    "redis": _redis,
    "first-token": partial(first_token.main, 10),
    "turn": partial(turn.main, 8, 15.0, 10),
    "letta": partial(letta.main, 8, 15.0, 1, [letta.RELEASED]),
    "registration": partial(registration.main, 50, 8, 8.0, 8),
    "growth": partial(growth.main, (growth.CASES[0], growth.CASES[-1])),
}
NAMES: Final = (*ALONE, *ON_THE_STACK)


def main(names: Collection[str], *, markdown: bool) -> int:
    """Run those that are named, or all. Prints the table at the end. Returns 1 if one of them failed."""
    began, chosen = time.monotonic(), set(names or NAMES)
    rows, failed = _run({name: run for name, run in ALONE.items() if name in chosen})
    if on_the_stack := {name: run for name, run in ON_THE_STACK.items() if name in chosen}:
        waited = time.monotonic()
        try:
            with shared_stack():
                print(f"== the stack is ready after {time.monotonic() - waited:.0f} s", flush=True)
                more, also_failed = _run(on_the_stack)
                rows, failed = rows + more, failed + also_failed
        except Exception:  # it did not start, or did not stop
            failed.append("the stack")
            traceback.print_exc()
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, {machine()}; {time.monotonic() - began:.0f} s\n")
    print(as_markdown(rows) if markdown else as_text(rows))
    print(f"failed: {', '.join(failed)}" if failed else "", end="\n" if failed else "")
    return bool(failed)


def _run(benchmarks: Mapping[str, Benchmark]) -> tuple[list[Row], list[str]]:
    """The rows of each, and the names of those that failed, which do not end the others."""
    rows, failed = [], []
    for name, run in benchmarks.items():
        began = time.monotonic()
        print(f"== {name}", flush=True)
        try:
            with deadline(LONGEST_SECONDS):
                rows += run()
        except Exception:  # the table has what the others measured
            failed.append(name)
            traceback.print_exc()
        print(f"== {name}: {time.monotonic() - began:.0f} s", flush=True)
    return rows, failed
