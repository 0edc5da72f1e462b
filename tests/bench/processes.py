"""Processes of a benchmark: started, awaited until they listen, measured from /proc, and always ended in time."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_AGAIN_SECONDS = 30.0


@contextmanager
def running(module: str, *arguments: str, port: int) -> Iterator[int]:
    """`python -m module … --port port`, once it listens. Yields its pid."""
    with listening([sys.executable, "-m", module, *arguments, "--port", str(port)], port) as pid:
        yield pid


@contextmanager
def listening(command: list[str], port: int, seconds: float = 120) -> Iterator[int]:
    """The command's process, once it listens at `port`. Yields its pid."""
    process = subprocess.Popen(command)
    try:
        _wait_for(port, process, seconds)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen")


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds, whatever it waits for, and again until it has ended: its
    clean-up could wait, too. In the main thread only, and not in uvloop's loop, which ignores it."""

    def end(*_: object) -> None:
        raise TimeoutError(f"this has not ended within {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, end)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def cpu_seconds(pid: int) -> float:
    """User and system time the process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """Resident memory of the process."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def allow_open_files(number: int) -> None:
    """Raise this process's limit of open files, which children inherit. Raises ValueError where the system forbids."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, max(hard, number)))


def machine() -> str:
    """The processor, cores and memory, for the reader of a table."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
    )
    kilobytes = int(next(line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")))
    python = ".".join(str(part) for part in sys.version_info[:3])
    return f"{os.cpu_count()} cores of {model}, {kilobytes / 2**20:.0f} GiB of memory, Python {python}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
