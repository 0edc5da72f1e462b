"""What every session of an instance works with."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from server.sessions.admission import Admission
from server.sessions.attempt import AttemptServices
from server.sessions.events.logs import Logs
from server.sessions.patience import CrashBackoff


@dataclass(frozen=True, slots=True)
class SessionServices:
    """`is_current` is False while the leases could not be renewed in time, `may_start` also while draining.

    `forget` drops a session that was lost: its user, and the session itself, which may have a successor by now.
    `look_after` has the user's current one take up what is open.
    """

    attempts: AttemptServices
    logs: Logs
    admission: Admission
    owner: str
    is_current: Callable[[], bool]
    may_start: Callable[[], bool]
    is_draining: Callable[[], bool]
    spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
    forget: Callable[[str, object], None]
    look_after: Callable[[str], None]
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    claim_pause: float = 1.0
    crashes: CrashBackoff = field(default_factory=CrashBackoff)
