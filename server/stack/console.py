"""What `chat up` says: one line per finished step with its duration, on the terminal and in the log called `stack`."""

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from server.stack.layout import Layout
from server.stack.processes import open_log
from server.terminal import echo


class _LogLines:
    """What structlog writes to: every level is one line of the log."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = write


class Console:
    """Speaks to the terminal; a terminal that has gone away must not keep the stack from stopping."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._began = time.monotonic()

    def take_logging(self) -> None:
        """Send log events of code that runs inside `chat up` to the same log, off the terminal."""
        structlog.configure(
            processors=[structlog.stdlib.add_log_level, structlog.processors.JSONRenderer()],
            logger_factory=lambda *_: _LogLines(self._record),
        )

    @property
    def elapsed(self) -> float:
        """Seconds since `chat up` began."""
        return time.monotonic() - self._began

    def step(self, service: str, what: str, seconds: float | None = None) -> None:
        """`service` did `what`, which took `seconds`."""
        took = "" if seconds is None else f" ({seconds:.1f} s)"
        self.say(f"  {self.elapsed:6.1f} s  {service:<9} {what}{took}")

    def say(self, text: str) -> None:
        """Any text, as it is."""
        with contextlib.suppress(OSError):
            echo(text)
        self._record(text)

    def _record(self, text: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with contextlib.suppress(OSError), open_log(self._layout.log("stack")) as log:
            log.write("".join(f"{now} {line}\n" for line in text.splitlines() if line.strip()).encode())
