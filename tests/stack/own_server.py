"""API servers of the tests' own, as processes that may be killed, frozen and restarted. Independent of pytest."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp

from tests.stack.forked import ROOT, Forked
from tests.stack.running_stack import RunningStack, free_port

READY_SECONDS: Final = 180.0
STOP_SECONDS: Final = 180.0
INHERITED: Final = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
TAIL_LINES: Final = 60
REDIS_DATABASE: Final = 1
"""Another database than Letta's, so that a test may empty it."""


def server_environment(stack: RunningStack, supabase: Mapping[str, str]) -> dict[str, str]:
    """The variables of a server on the stack's Letta, LiteLLM and Redis, and on a Supabase that is not the stack's.

    The stack's own API server would adopt the turns that a killed server leaves open."""
    return {
        **stack.env,
        **supabase,
        "REDIS_URL": redis_url(stack),
        "ENVIRONMENT": "development",
        "HOST": "127.0.0.1",
        "DRAIN_SECONDS": "3",
        "AUTH_REQUESTS_PER_MINUTE": "0",
        "SIGN_INS_PER_MINUTE": "0",
        "NEW_ACCOUNTS_PER_MINUTE": "0",
        "REQUESTS_PER_MINUTE": "0",
        "MEMORY_REQUESTS_PER_MINUTE": "0",
        "SEARCHES_PER_MINUTE": "0",
        "EXPORTS_PER_MINUTE": "0",
        "MESSAGES_PER_MINUTE": "0",
    }


def redis_url(stack: RunningStack) -> str:
    """The stack's Redis, which is only in a comment of `stack.env`."""
    found = re.search(r"^# REDIS_URL=(redis://\S+)/0$", (stack.data_dir / "stack.env").read_text(), re.MULTILINE)
    assert found, "stack.env does not name the stack's Redis"
    return f"{found[1]}/{REDIS_DATABASE}"


class ServerProcess:
    """`python -m server serve` with the given variables: `with ServerProcess(…) as server: await server.ready()`.

    Its log is one file across restarts. At the end of the block it is killed, whatever its state.
    `code` is the folder in which `server` is, this checkout's or another release's. This checkout's is `forked`, unless
    a test reads what only an executed process has.
    """

    def __init__(
        self, env: Mapping[str, str], log: Path, port: int | None = None, code: Path = ROOT, *, forked: bool = True
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._code = code
        self._is_forked = forked and code == ROOT
        self._env = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self._env |= {**env, "PORT": str(self.port), "PUBLIC_URL": self.url, "NO_PROXY": "127.0.0.1,localhost"}
        self._process: subprocess.Popen[bytes] | Forked | None = None

    def __enter__(self) -> "ServerProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def alive(self) -> bool:
        """Whether it runs, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The pid of the process that runs, or ran last."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the same port each time. It is not ready yet."""
        assert not self.alive
        if self._is_forked:
            self._process = Forked(("serve",), self._env, self.log)
            return
        command = [sys.executable, "-m", "server", "serve"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._code, env=self._env, stdout=log, stderr=log)

    async def ready(self) -> None:
        """Return when it accepts requests, even if one of its services is unavailable. Fails with its log if it
        ended."""
        until = time.monotonic() + READY_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
            while time.monotonic() < until:
                if not self.alive:
                    raise AssertionError(f"the server ended by itself; its log ends:\n{self.log_tail()}")
                try:
                    async with http.get(f"{self.url}/ready") as response:
                        if response.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.1)
        raise AssertionError(f"the server was not ready in {READY_SECONDS:.0f} s; its log ends:\n{self.log_tail()}")

    async def restart(self) -> None:
        """Start it again and wait until it is ready; if it still runs, end it with SIGTERM before."""
        if self.alive:
            self.terminate()
            await self.stopped()
        self.start()
        await self.ready()

    def kill(self) -> None:
        """SIGKILL, as a crash or the kernel would. Returns when it has ended; does nothing if it had ended before."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def terminate(self) -> None:
        """SIGTERM, as a deploy would. It drains and then ends: see `stopped`."""
        self._signal(signal.SIGTERM)

    async def stopped(self) -> int:
        """Return when it has ended, with its exit code."""
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until:
            assert self._process is not None
            if (code := self._process.poll()) is not None:
                return code
            await asyncio.sleep(0.05)
        raise AssertionError(f"the server did not end in {STOP_SECONDS:.0f} s; its log ends:\n{self.log_tail()}")

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay open and get no answers, as on a machine that swaps or is migrated."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it continues where it was stopped."""
        self._signal(signal.SIGCONT)

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        """The end of what it has logged."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        assert self.alive, f"the server is not running; its log ends:\n{self.log_tail()}"
        os.kill(self.pid, number)
