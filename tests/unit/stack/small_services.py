"""Small services for unit tests: real processes under the real supervisor, without any function."""

import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from server.stack.instance import ServiceState
from server.stack.layout import Layout
from server.stack.service import Command, Progress, Service

SERVE = """
import pathlib, signal, sys
def leave(*_):
    with open("events", "a") as events: events.write("{name} stopped\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
with open("events", "a") as events: events.write("{name} started\\n")
pathlib.Path("{name}.up").touch()
while True: signal.pause()
"""
IGNORE_SIGTERM = """
import pathlib, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("{name}.up").touch()
while True: signal.pause()
"""
FAIL = "import sys; sys.exit('this service always fails')"


class SmallService(Service):
    """A Python process, healthy as soon as it has created `<name>.up`."""

    def __init__(self, layout: Layout, code: str) -> None:
        super().__init__(layout)
        self._code = code
        self._mark = layout.root / f"{self.name}.up"

    def command(self) -> Command:
        self._mark.unlink(missing_ok=True)
        argv = (sys.executable, "-I", "-S", "-c", self._code.replace("{name}", self.name))
        return Command(argv, {}, self.layout.root, stop_seconds=120)

    async def healthy(self) -> bool:
        return self._mark.exists()


def small(layout: Layout, name: str, code: str = SERVE, needs: tuple[str, ...] = ()) -> SmallService:
    """A service `name` that runs `code` and depends on `needs`."""
    kind = type(name, (SmallService,), {"name": name, "depends_on": needs})
    service = kind(layout, code)
    assert isinstance(service, SmallService)
    return service


class Uninstallable(SmallService):
    """A service whose installation fails with a full disk at the path `code`."""

    name: ClassVar[str] = "uninstallable"
    installed = False

    async def install(self, progress: Progress) -> None:
        raise OSError(28, "No space left on device", self._code)


class States:
    """Records the states from the supervisor, and calls a function when a condition holds."""

    def __init__(self) -> None:
        self.now: list[ServiceState] = []
        self._waiting: list[tuple[Callable[[dict[str, ServiceState]], bool], Callable[[], None]]] = []

    def __call__(self, states: list[ServiceState]) -> None:
        self.now = states
        for condition, act in list(self._waiting):
            if condition({state.name: state for state in states}):
                self._waiting.remove((condition, act))
                act()

    def when(self, condition: Callable[[dict[str, ServiceState]], bool], act: Callable[[], None]) -> None:
        """Call `act` once, as soon as `condition` is true for the states by service name."""
        self._waiting.append((condition, act))


def events(layout: Layout) -> list[str]:
    """The events that the small services have written, in order."""
    return (layout.root / "events").read_text().splitlines()


def wait_until_gone(pid: int, seconds: float = 120) -> bool:
    """Wait until the process ends. Returns False after `seconds`."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0]) or not Path(f"/proc/{pid}").exists()
    finally:
        os.close(descriptor)
