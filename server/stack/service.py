"""The interface of a service of the local stack: install, prepare, start and health check.

Definitions only; the supervisor calls them, and one module per service implements them."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from server.stack.layout import Layout

Progress = Callable[[str], None]
"""Prints the current part of a long step on the terminal: `progress("downloading 840 MB")`."""


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged user of a service if `chat up` runs as root.

    With `namespace` the process is `uid` only inside a user namespace and keeps root's access to files: for a data
    directory under a folder that only root may enter."""

    uid: int
    gid: int
    namespace: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """How a service's process is started and stopped. `env` is its whole environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 4.0
    """The timeout of a stop; then the whole process group is killed."""
    death_signal: signal.Signals = signal.SIGKILL
    """The signal that the kernel sends the process if `chat up` is killed."""


class Service(ABC):
    """One process of the local stack.

    The supervisor calls `install` for all services at once; then, when all of `depends_on` are healthy, it calls
    `prepare` and starts `command()`. If the process exits, it is restarted with a new `command()`. The methods are
    called at every start of `chat up`: they are idempotent, and quick if there is nothing to do."""

    name: ClassVar[str]
    depends_on: ClassVar[tuple[str, ...]] = ()
    start_seconds: ClassVar[float] = 180.0
    """The timeout until the process is healthy; then `chat up` ends."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @property
    def port(self) -> int:
        """The service's TCP port on 127.0.0.1: a free one, and the same at each start as long as it is free."""
        return self.layout.port(self.name)

    @property
    def installed(self) -> bool:
        """Whether `install` has nothing to do; decides how much free disk space is needed. Reads only stamps."""
        return True

    async def install(self, progress: Progress) -> None:  # noqa: B027 - nothing to install is a fair default
        """Install the service's software in the data directory. An unfinished installation is detected and repeated.

        Raises StackError with the reason in one sentence."""

    async def prepare(self) -> None:  # noqa: B027 - likewise
        """Create what the process needs before it starts (databases, schema, configuration files).

        Runs after everything in `depends_on` is healthy. Raises StackError."""

    @abstractmethod
    def command(self) -> Command:
        """The process to start."""

    @abstractmethod
    async def healthy(self) -> bool:
        """Whether the running process serves requests now. Returns within about two seconds and never raises."""
