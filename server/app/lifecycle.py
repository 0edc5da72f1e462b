"""The life of one server process: it takes traffic only while it is `running`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from server.observability.readiness import Phase


async def _nothing(_seconds: float) -> None:
    pass


@dataclass(slots=True)
class Lifecycle:
    """Where this instance stands, and how it leaves."""

    phase: Phase = "starting"
    on_drain: Callable[[float], Awaitable[None]] = _nothing
    """Ends the running work within so many seconds; set by the wiring."""

    def started(self) -> None:
        """From now on this instance takes traffic."""
        self.phase = "running"

    async def drain(self, seconds: float) -> None:
        """Not ready, no new turns, running ones finish within `seconds`, clients are sent to reconnect."""
        self.phase = "draining"
        await self.on_drain(seconds)


LIFECYCLE: Final = web.AppKey("lifecycle", Lifecycle)
