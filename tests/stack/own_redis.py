"""A Redis of the tests' own, beside the stack's: one that may be killed, frozen, filled and emptied."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.exceptions import RedisError

from server.stack.layout import Layout
from server.stack.redis import Redis
from tests.stack.running_stack import RunningStack, free_port

SECONDS = 120
"""A generous limit of a start, and of an answer."""


class OwnRedis:
    """A Redis process without automatic persistence: a crash loses everything since `save`."""

    def __init__(self, program: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, socket_timeout=SECONDS)
        self._command = [program, "--port", str(self.port), "--dir", str(folder), "--save", "", "--appendonly", "no"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + SECONDS
        while not self._answers():
            assert time.monotonic() < until, "Redis does not start"
            time.sleep(0.02)

    def save(self) -> None:
        """Save the data, so that it survives a crash."""
        self.client.save()

    def crash(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open and get no answers, as on a broken network."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def fill(self) -> None:
        """Make it refuse writes: noeviction, and less memory than it uses."""
        self.client.config_set("maxmemory-policy", "noeviction")
        self.client.config_set("maxmemory", "1")

    def accept_writes(self) -> None:
        self.client.config_set("maxmemory", "0")

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self.crash()
        self.client.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (RedisError, OSError):
            return False


@contextmanager
def own_redis(stack: RunningStack, folder: Path) -> Iterator[OwnRedis]:
    """The stack's executable, as a server of the tests' own. It runs from the start."""
    program = Redis(Layout(stack.data_dir, api_port=0)).command().argv[0]
    server = OwnRedis(program, folder)
    server.start()
    try:
        yield server
    finally:
        server.close()
