"""The output of `chat up`: one line per finished step with its duration, on the terminal and in the log `stack`."""

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from server.stack.layout import Layout
from server.stack.processes import open_log
from server.terminal import echo


class _LogLines:
    """The logger for structlog: writes each event as one line, at any level."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = write


class ProgressLog:
    """Writes to the terminal and the log. Write errors are ignored, so that a closed terminal cannot prevent a stop."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._began = time.monotonic()

    def capture_logging(self) -> None:
        """Write log events of code inside `chat up` to the same log, not to the terminal."""
        structlog.configure(
            processors=[structlog.stdlib.add_log_level, structlog.processors.JSONRenderer()],
            logger_factory=lambda *_: _LogLines(self._record),
        )

    @property
    def elapsed(self) -> float:
        """Seconds since `chat up` began."""
        return time.monotonic() - self._began

    def step(self, service: str, what: str, seconds: float | None = None) -> None:
        """Print that `service` has done `what`, and the `seconds` it took."""
        took = "" if seconds is None else f" ({seconds:.1f} s)"
        self.say(f"  {self.elapsed:6.1f} s  {service:<9} {what}{took}")

    def say(self, text: str, *, highlighted: bool = False) -> None:
        """Print the text."""
        with contextlib.suppress(OSError):
            echo(text, fg="green" if highlighted else None, bold=highlighted)
        self._record(text)

    def _record(self, text: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with contextlib.suppress(OSError), open_log(self._layout.log("stack")) as log:
            log.write("".join(f"{now} {line}\n" for line in text.splitlines() if line.strip()).encode())
