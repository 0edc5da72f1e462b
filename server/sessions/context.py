"""What every session of an instance works with."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from server.resilience.retry import Backoff, FailureBackoff
from server.sessions.admission import Admission
from server.sessions.events.logs import Logs
from server.sessions.turns.attempt import AttemptServices


@dataclass(frozen=True, slots=True)
class SessionContext:
    """`is_current` is False while the leases could not be renewed in time, `may_start` also while draining.

    `forget` drops a session that was lost: its user, and the session itself, which may have a successor by now.
    `recover` has the user's current session claim the open turns. `crashes`: the pauses after a
    crash of a user's runner, since the next owner begins with the same rows, and each try costs the agent's service.
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
    recover: Callable[[str], None]
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    claim_pause: float = 1.0
    crashes: FailureBackoff[str] = field(default_factory=lambda: FailureBackoff(Backoff(1.0, 30.0, jitter=0.0)))
