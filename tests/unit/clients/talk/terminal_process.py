"""`chat talk` as a process: on a pseudo terminal, as a person uses it, or in a pipe."""

import asyncio
import codecs
import fcntl
import os
import pty
import struct
import sys
import termios
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.unit.clients.talk.terminal import SECONDS, FakeTerminal

COMMAND = (sys.executable, "-m", "server", "talk")


def environment(state: Path, **variables: str) -> dict[str, str]:
    """What the process has: its sign-ins are in `state`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV") if name in os.environ}
    return {**kept, "XDG_STATE_HOME": str(state), "NO_PROXY": "127.0.0.1", "TERM": "xterm-256color", **variables}


@dataclass(frozen=True, slots=True)
class TalkProcess:
    """The process, and the terminal that it writes to."""

    terminal: FakeTerminal
    process: Process
    keyboard: int

    def type(self, text: str) -> None:
        """Press keys: `\\r` is Enter."""
        os.write(self.keyboard, text.encode())

    async def shows(self, *texts: str) -> None:
        await self.terminal.shows(*texts)

    async def enter(self, question: str, text: str) -> None:
        """Answer a question, when it is there."""
        await self.shows(question)
        self.type(f"{text}\r")

    async def ended(self) -> int:
        """The exit code, when it has ended by itself."""
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def talking(state: Path, *options: str, columns: int = 100, **variables: str) -> AsyncIterator[TalkProcess]:
    """The command in a terminal of its own. It is killed at the end of the block."""
    keyboard, line = pty.openpty()
    fcntl.ioctl(line, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, *options),
        stdin=line,
        stdout=line,
        stderr=line,
        start_new_session=True,
        env=environment(state, **variables),
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(line)
    terminal, decoder = FakeTerminal(columns, 30), codecs.getincrementaldecoder("utf-8")("replace")
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            data = os.read(keyboard, 65536)
        except OSError:  # the process has ended
            data = b""
        if data:
            terminal.write(decoder.decode(data))
        else:
            loop.remove_reader(keyboard)

    loop.add_reader(keyboard, read)
    try:
        yield TalkProcess(terminal, process, keyboard)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        loop.remove_reader(keyboard)
        os.close(keyboard)


async def piped(state: Path, *options: str, given: str = "", **variables: str) -> tuple[int, str, str]:
    """The exit code, standard output and standard error of the command without a terminal."""
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, *options), stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment(state, **variables)
    )
    async with asyncio.timeout(SECONDS):
        output, errors = await process.communicate(given.encode())
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()
