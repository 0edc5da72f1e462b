"""The lifecycle of one server process: it takes traffic only while it is `running`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from server.observability.readiness import Phase


async def _nothing(_seconds: float) -> None:
    pass


@dataclass(slots=True)
class Lifecycle:
    """The phase of this instance, and its drain."""

    phase: Phase = "starting"
    on_drain: Callable[[float], Awaitable[None]] = _nothing
    """Ends running turns within the given seconds; set by the wiring."""

    def started(self) -> None:
        """Enter the phase `running`: this instance takes traffic."""
        self.phase = "running"

    async def drain(self, seconds: float) -> None:
        """Enter the phase `draining`: no new turns; running ones finish within `seconds`; clients must reconnect."""
        self.phase = "draining"
        await self.on_drain(seconds)


LIFECYCLE: Final = web.AppKey("lifecycle", Lifecycle)
