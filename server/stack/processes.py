"""Starts, awaits and stops child processes so that none survives `chat up`, even if it is killed.

Each child leads its own session, so Ctrl-C at the terminal reaches only `chat up`; the kernel signals it when `chat up`
dies. Start processes from the main thread only: the death signal is bound to the thread that forked."""

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
"""A service's log of more bytes is renamed to `.1` when it is opened for a start."""

DISK_FULL = {os.strerror(errno.ENOSPC): "the disk is full; free some space and retry"}
LINE_BYTES = 400
"""The assumed length of a log line, generous, to read only the end of a log."""


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
    """Run the command to its end. When cancelled, its whole process group is killed.

    Raises StackError if it fails, with the reason whose phrase is in the output, else with the output's last line."""
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
    """Stop a process by its stop signal, and after `command.stop_seconds` kill it and its group."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(command.stop_signal)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(command.stop_seconds):
            await process.wait()
    kill_group(process.pid)
    await process.wait()


def kill_group(group: int) -> None:
    """Send SIGKILL to the process group, if it still exists."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@contextlib.contextmanager
def open_log(log: Path) -> Iterator[IO[bytes]]:
    """Open the log for appending; rotate it first if it exceeds LOG_LIMIT."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        yield output


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log; empty if the file does not exist."""
    try:
        with log.open("rb") as file:
            return tail_of(file, lines)
    except FileNotFoundError:
        return []


def tail_of(file: IO[bytes], lines: int) -> list[str]:
    """The last lines of an open log. Leaves the file at its end, so that later lines can be read from it."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - LINE_BYTES * lines))
    found = file.read().decode("utf-8", "replace").splitlines()
    return found[-lines:] if lines else []


def last_line(output: str) -> str:
    """The last line that is not blank, at most 300 characters of it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def unprivileged(home: Path) -> Account | None:
    """The account for a service that refuses to run as root; None if `chat up` does not run as root.

    Prefers an unprivileged user. If that user cannot enter a folder above `home`, or does not exist in the container,
    root runs the service in a user namespace as that user. Raises StackError if neither is possible."""
    if os.geteuid() != 0:
        return None
    uid, gid = _unprivileged_ids()
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


def _unprivileged_ids() -> tuple[int, int]:
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
