"""The tests' stack, which is running already: benchmarks start no services of it."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stack.own_redis import own_redis
from tests.stack.running_stack import RunningStack, read_env


def running_stack() -> RunningStack:
    """That of CHAT_TEST_DIR, by default `.chat-test`."""
    folder = Path(os.environ.get("CHAT_TEST_DIR", ".chat-test")).absolute()
    ports = json.loads((folder / "ports.json").read_text())
    return RunningStack(
        folder / "stack",
        f"http://127.0.0.1:{ports['api']}",
        f"http://127.0.0.1:{ports['model']}",
        read_env(folder / "stack" / "stack.env"),
    )


@contextmanager
def redis_at(url: str | None) -> Iterator[str]:
    """This Redis, or an empty one of the benchmark's own: the stack's program, which need not run."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory() as folder, own_redis(running_stack(), Path(folder)) as server:
        yield server.url
