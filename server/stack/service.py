"""What the local stack asks of a service: how to install, prepare, start and probe it.

Pure definitions; the supervisor drives them, one module per service fulfils them."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from server.stack.layout import Layout

Progress = Callable[[str], None]
"""Tells the person at the terminal what a long step is doing now: `progress("downloading 840 MB")`."""


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged user a service runs as when `chat up` is root.

    With `namespace` the process keeps root's view of the files but believes, inside a user namespace, that it is
    `uid`: the way out when the data directory lies under a folder only root may enter."""

    uid: int
    gid: int
    namespace: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """How a service's process is started and stopped. `env` is complete: nothing else is inherited."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 4.0
    """How long a stop may take before the whole process group is killed."""
    death_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends the process should `chat up` itself be killed."""


class Service(ABC):
    """One process of the local stack.

    The supervisor calls `install` for all services at once; then, as soon as everything in `depends_on` is healthy,
    `prepare`, and starts `command()`. Only the process is restarted when it dies, and `command()` is asked again then.
    All four may be called on every start: they are idempotent and quick when there is nothing to do."""

    name: ClassVar[str]
    depends_on: ClassVar[tuple[str, ...]] = ()
    start_seconds: ClassVar[float] = 180.0
    """How long the process may take until it is healthy before `chat up` gives up."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @property
    def port(self) -> int:
        """The service's TCP port on 127.0.0.1: chosen free on the first start, kept while it stays free."""
        return self.layout.port(self.name)

    @property
    def installed(self) -> bool:
        """Whether `install` would find nothing to do; decides how much free disk is asked for. Reads stamps only."""
        return True

    async def install(self, progress: Progress) -> None:  # noqa: B027 - nothing to install is a fair default
        """Bring the service's software into the data directory; a half-finished attempt is detected and redone.

        Raises StackError with the reason in one sentence."""

    async def prepare(self) -> None:  # noqa: B027 - likewise
        """Create what the process needs before it starts (databases, schema, configuration files).

        Runs after everything in `depends_on` is healthy. Raises StackError."""

    @abstractmethod
    def command(self) -> Command:
        """The process to start."""

    @abstractmethod
    async def healthy(self) -> bool:
        """Whether the running process serves requests now. Answers within about two seconds and never raises."""
