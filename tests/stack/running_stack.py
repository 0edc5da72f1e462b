"""The stack on which tests run: its addresses, its processes, and the control endpoints of the scripted model."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

_KEEPERS: list[socket.socket] = []


def free_port() -> int:
    """A free TCP port of the loopback interface, which no other process is given while this one runs.

    It refuses connections until a server listens there, which must set SO_REUSEADDR, as all of ours do.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    _KEEPERS.append(keeper)
    return int(keeper.getsockname()[1])


def read_env(path: Path) -> dict[str, str]:
    """A dotenv file's variables."""
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


@dataclass(frozen=True, slots=True)
class RunningStack:
    """A `chat up` that is ready. `url` is the API server's, `model_url` the scripted model's."""

    data_dir: Path
    url: str
    model_url: str
    env: dict[str, str]

    def status(self) -> dict[str, dict[str, Any]]:
        """`chat status --json` by service name."""
        done = subprocess.run(
            [sys.executable, "-m", "server", "status", "--json", "--data-dir", str(self.data_dir)],
            capture_output=True,
            check=True,
        )
        return {row["name"]: row for row in json.loads(done.stdout)}

    def kill(self, service: str) -> int:
        """SIGKILL a service, as a crash would. Its supervisor restarts it. Returns the pid of the killed process."""
        return self.signal(service, signal.SIGKILL)

    def signal(self, service: str, number: signal.Signals) -> int:
        """Send a signal to a service that other tests use, too. Returns its pid."""
        assert "PYTEST_XDIST_WORKER" not in os.environ, "mark this test `alone`: others use the services beside it"
        pid = int(self.status()[service]["pid"])
        os.kill(pid, number)
        return pid

    async def open_gate(self, http: aiohttp.ClientSession, name: str) -> None:
        """Let the scripted model's replies pass gate `name`."""
        async with http.post(f"{self.model_url}/gate/{name}") as response:
            assert response.status == 204

    async def at_gate(self, http: aiohttp.ClientSession, name: str) -> None:
        """Return when a reply of the scripted model waits at gate `name`."""
        async with http.get(f"{self.model_url}/gate/{name}") as response:
            assert response.status == 200

    async def model_log(self, http: aiohttp.ClientSession, contains: str) -> list[dict[str, Any]]:
        """The requests that the scripted model got whose last user message contains `contains`."""
        async with http.get(f"{self.model_url}/log", params={"contains": contains}) as response:
            return list(await response.json())
