"""Starts, awaits and ends child processes so that none survives `chat up`, however that ends.

Every child leads a session of its own (a Ctrl-C at the terminal reaches only us) and is signalled by the kernel when we
die. Start processes from the main thread only: the kernel watches the thread that forked."""

import asyncio
import contextlib
import errno
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from server.stack import launch
from server.stack.errors import StackError
from server.stack.service import Account, Command

LOG_LIMIT = 20 * 1024 * 1024
"""A service's log is set aside as `.1` when it is found longer than this many bytes at a start."""

DISK_FULL = {os.strerror(errno.ENOSPC): "the disk is full; free some space and retry"}
LINE_BYTES = 400
"""A generous guess at the length of a log's lines, to find the last ones without reading it all."""


async def start(command: Command, log: Path) -> asyncio.subprocess.Process:
    """Start the command with its output appended to `log` (mode 0600). Raises StackError if it cannot be started."""
    with open_log(log) as output:
        try:
            return await asyncio.create_subprocess_exec(
                *_launched(command),
                env=dict(command.env),
                cwd=command.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise StackError(f"{command.argv[0]} cannot be started: {error.strerror}") from error


async def run(command: Command, log: Path, doing: str, reasons: Mapping[str, str] = DISK_FULL) -> None:
    """Run the command to its end; when cancelled, its whole process group is killed.

    Raises StackError if it fails: the reason whose phrase is in the output, else the output's last line."""
    began = _size(log)
    process = await start(command, log)
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            kill_group(process.pid)
            await process.wait()
    if code == 0:
        return
    output = _from(log, began)
    for phrase, reason in reasons.items():
        if phrase in output:
            raise StackError(f"{doing} failed: {reason} (more in {log})")
    raise StackError(f"{doing} failed: {last_line(output) or f'exit code {code}'} (more in {log})")


async def stop(process: asyncio.subprocess.Process, command: Command) -> None:
    """End a process and everything in its group: politely for `command.stop_seconds`, then for good."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(command.stop_signal)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(command.stop_seconds):
            await process.wait()
    kill_group(process.pid)
    await process.wait()


def kill_group(group: int) -> None:
    """SIGKILL every process of the group; a group that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@contextlib.contextmanager
def open_log(log: Path) -> Iterator[IO[bytes]]:
    """The log for appending, set aside first if it has grown too long."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        yield output


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log; none if there is no log."""
    try:
        with log.open("rb") as file:
            return tail_of(file, lines)
    except FileNotFoundError:
        return []


def tail_of(file: IO[bytes], lines: int) -> list[str]:
    """The last lines of an open log; what is written later can be read on from there."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - LINE_BYTES * lines))
    found = file.read().decode("utf-8", "replace").splitlines()
    return found[-lines:] if lines else []


def last_line(output: str) -> str:
    """The last line that says something, shortened to fit a sentence."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def unprivileged(home: Path) -> Account | None:
    """The account a service runs as that refuses to be root; None when we are not root.

    Prefers giving up root; where a folder above `home` is closed to others (or the account does not exist in our
    container's user namespace), appears as that user in a namespace. Raises StackError when neither is possible."""
    if os.geteuid() != 0:
        return None
    uid, gid = _nobody()
    closed = next((folder for folder in home.parents if not folder.stat().st_mode & 0o001), None)
    choices = [Account(uid, gid, namespace=True)] if closed else [Account(uid, gid), Account(uid, gid, namespace=True)]
    for account in choices:
        if _possible(account):
            return account
    if closed is None:
        raise StackError("PostgreSQL refuses to run as root, and this container has no other user: run as a user")
    raise StackError(
        f"PostgreSQL refuses to run as root, and {closed} is closed to every other user: "
        "name a --data-dir elsewhere (such as /var/lib/chat), or run as an ordinary user"
    )


def _nobody() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise StackError("PostgreSQL refuses to run as root, and there is no user `nobody` to run it as")


def _possible(account: Account) -> bool:
    trial = _launched(Command(("true",), {}, Path("/"), account))
    return subprocess.run(trial, check=False, capture_output=True).returncode == 0


def _launched(command: Command) -> list[str]:
    argv = [sys.executable, "-I", "-S", launch.__file__]
    argv += ["--parent", str(os.getpid()), "--death-signal", str(int(command.death_signal))]
    if command.account is not None:
        argv += ["--uid", str(command.account.uid), "--gid", str(command.account.gid)]
        argv += ["--namespace"] if command.account.namespace else []
    return [*argv, "--", *command.argv]


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _from(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        file.seek(min(offset, log.stat().st_size))
        return file.read().decode("utf-8", "replace")
