"""Inspects and stops a `chat up` from another terminal: `chat status`, `chat logs`, `chat mails`, `chat down`."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from server.stack import instance
from server.stack.errors import StackError
from server.stack.instance import State
from server.stack.layout import MARKER, Layout
from server.stack.mails import Mail, mail_file, read_mails
from server.stack.processes import tail, tail_of


def _pause() -> None:
    time.sleep(0.25)


STOP_SECONDS = 25.0
"""The timeout of a stop, which takes up to 20 s; then `chat up` is killed, and its children with it."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One row of `chat status`. `rss` is the resident memory of the process and its children, in bytes."""

    name: str
    pid: int | None
    port: int | None
    state: str
    rss: int | None


def status(data_dir: Path) -> list[ServiceStatus]:
    """The services of the data directory with their current state; empty if none was ever started there."""
    if not (data_dir / MARKER).exists():
        return []
    root = _existing(data_dir)
    running = instance.running_pid(root) is not None
    rows = []
    for service in instance.read_state(root):
        alive = running and instance.is_alive(service)
        state = service.state if running else State.STOPPED
        if state is State.RUNNING and not alive:
            state = State.RESTARTING  # it has just exited, and `chat up` has not recorded it yet
        pid = service.pid if alive else None
        memory = instance.tree_memory(pid) if pid else None
        rows.append(ServiceStatus(service.name, pid, service.port, state.value, memory))
    return rows


def down(data_dir: Path, timeout: float = STOP_SECONDS) -> bool:
    """Stop the `chat up` of the data directory and wait until it has ended. Returns False if none was running.

    After `timeout` seconds it is killed. Raises StackError if it belongs to another user."""
    root = _existing(data_dir)
    pid = instance.running_pid(root)
    if pid is None:
        return False
    instance.send_signal(pid, signal.SIGTERM)
    if not _ended(root, timeout):
        instance.send_signal(pid, signal.SIGKILL)
        if not _ended(root, STOP_SECONDS):
            raise StackError(f"process {pid} cannot be stopped")
    return True


def wipe(data_dir: Path) -> None:
    """Delete the data directory with its contents. Raises StackError if it is not one, or in use by a `chat up`."""
    root = _existing(data_dir)
    with instance.held_lock(root):
        instance.kill_orphans(root)
        Layout(root, api_port=0).wipe()


def mails(data_dir: Path, to: str | None = None) -> list[Mail]:
    """What Supabase Auth would have mailed, oldest first. Raises StackError if this is no data directory."""
    return read_mails(mail_file(_existing(data_dir)), to)


def recent_log(data_dir: Path, service: str, lines: int) -> list[str]:
    """The last lines a service wrote. Raises StackError if it has no log."""
    return tail(_log(data_dir, service), lines)


def follow_log(data_dir: Path, service: str, lines: int, pause: Callable[[], None] = _pause) -> Iterator[str]:
    """Yield the last lines a service wrote, then all that it writes, without end, also across rotations of its log."""
    path = _log(data_dir, service)
    file = path.open("rb")
    try:
        yield "".join(f"{line}\n" for line in tail_of(file, lines))
        while True:
            pause()
            if written := file.read():
                yield written.decode("utf-8", "replace")
            elif path.exists() and path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                file.close()
                file = path.open("rb")
    finally:
        file.close()


def _log(data_dir: Path, service: str) -> Path:
    folder = _existing(data_dir) / "logs"
    path = folder / f"{service}.log"
    if path.parent != folder or not path.exists():
        known = ", ".join(sorted(log.stem for log in folder.glob("*.log"))) or "none yet"
        raise StackError(f"there is no log of {service}; there are: {known}")
    return path


def _existing(data_dir: Path) -> Path:
    root = data_dir.absolute()
    if not (root / MARKER).exists():
        raise StackError(f"{root} is not a data directory of this program; nothing was ever started there")
    return root


def _ended(root: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while instance.running_pid(root) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
