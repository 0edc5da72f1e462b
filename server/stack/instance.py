"""The running `chat up` of a data directory: its lock, and the state it last recorded.

It holds a kernel lock (`flock`), which, unlike a pid file, cannot become stale."""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from server.stack import processes
from server.stack.errors import StackError
from server.stack.layout import write_private

LOCK = "run/lock"
STATE = "run/state.json"


class State(StrEnum):
    """The states of a service."""

    WAITING = "waiting"
    INSTALLING = "installing"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The recorded state of one service. `started` is the process's start time, in clock ticks since boot."""

    name: str
    port: int | None
    state: State
    pid: int | None = None
    started: int | None = None


@contextlib.contextmanager
def held_lock(root: Path) -> Iterator[None]:
    """Hold the lock of this data directory. Raises StackError if another `chat up` holds it."""
    path = root / LOCK
    with path.open("a+", encoding="utf-8") as file:
        if not _lock(file):
            file.seek(0)
            pid = file.read().strip() or "unknown"
            raise StackError(
                f"`chat up` is already running in {root} (process {pid}); "
                "stop it with `chat down`, or name another --data-dir"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def running_pid(root: Path) -> int | None:
    """The process id of the `chat up` that holds the lock of this data directory; None if none does."""
    with contextlib.suppress(FileNotFoundError), (root / LOCK).open("r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read().strip() or 0) or None
    return None


def write_state(root: Path, services: list[ServiceState]) -> None:
    """Record the services for `chat status`."""
    write_private(root / STATE, json.dumps([asdict(service) for service in services], indent=1) + "\n")


def read_state(root: Path) -> list[ServiceState]:
    """The last recorded states; empty if `chat up` never ran."""
    try:
        rows = json.loads((root / STATE).read_text(encoding="utf-8"))
        return [ServiceState(**{**row, "state": State(row["state"])}) for row in rows]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return []


def start_time(pid: int) -> int | None:
    """The start time of the process, in clock ticks since boot. Pid and start time together are unique."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def is_alive(service: ServiceState) -> bool:
    """Whether the recorded process is running, and its pid was not reused."""
    return service.pid is not None and service.started is not None and start_time(service.pid) == service.started


def tree_memory(pid: int) -> int:
    """Resident memory of a process and its descendants in bytes. Shared pages count once (PSS)."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    total, pids = 0, [pid]
    while pids:
        process = pids.pop()
        pids += children.get(process, [])
        with contextlib.suppress(OSError):
            total += _memory(Path(f"/proc/{process}"))
    return total


def kill_orphans(root: Path) -> list[str]:
    """Kill service processes that a killed `chat up` left running. Returns their names. Call with the lock held."""
    left = [service for service in read_state(root) if is_alive(service)]
    for service in left:
        assert service.pid is not None
        processes.kill_group(service.pid)
    return [service.name for service in left]


def send_signal(pid: int, how: signal.Signals) -> None:
    """Send a signal to `chat up`. Raises StackError if it belongs to another user."""
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise StackError(f"process {pid} belongs to another user; stop it as that user") from None


def _lock(file: IO[str]) -> bool:
    """Acquire the lock. Retries for a second, since `chat status` and similar commands hold it for an instant."""
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat after the program's name: state, parent, …; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _memory(folder: Path) -> int:
    try:
        rollup = (folder / "smaps_rollup").read_text(encoding="utf-8")
        return _kibibytes(rollup, "Pss:")
    except OSError:
        return _kibibytes((folder / "status").read_text(encoding="utf-8"), "VmRSS:")


def _kibibytes(text: str, field: str) -> int:
    line = next((line for line in text.splitlines() if line.startswith(field)), None)
    return int(line.split()[1]) * 1024 if line else 0
