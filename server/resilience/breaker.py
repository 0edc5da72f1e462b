"""Circuit breaker: refuses calls to a service for some seconds after it did not answer."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Breaker:
    """Opens after `threshold` failed calls in a row; then refuses calls at once for some seconds, and admits one call
    as a probe.

    The first pause is `shortest` seconds, each further one twice as long, `cooldown` at most. It begins short because
    all calls that are under way when a service restarts fail at the same moment, and it has recovered soon after."""

    service: str
    code: ErrorCode
    threshold: int = 5
    shortest: float = 0.5
    cooldown: float = 5.0
    clock: Callable[[], float] = time.monotonic
    _failures: int = field(default=0, init=False)
    _pause: float = field(default=0.0, init=False)
    _probe_at: float | None = field(default=None, init=False)
    _probing: bool = field(default=False, init=False)

    @property
    def is_open(self) -> bool:
        return self._probe_at is not None

    def admit(self) -> None:
        """Raises PlatformError(<service>_unavailable, retry_after) while open."""
        if self._probe_at is None:
            return
        remaining = self._probe_at - self.clock()
        if remaining > 0 or self._probing:
            raise PlatformError(self.code, retry_after=max(remaining, 1.0))
        self._probing = True

    def succeeded(self) -> None:
        if self._probe_at is not None:
            log.info("breaker.closed", service=self.service)
        self._failures, self._pause, self._probe_at, self._probing = 0, 0.0, None, False

    def failed(self) -> None:
        self._failures += 1
        self._probing = False
        if self._failures < self.threshold:
            return
        if self._probe_at is None:
            log.warning("breaker.opened", service=self.service, failures=self._failures)
        elif self.clock() < self._probe_at:
            return  # a call that was under way when the breaker opened
        self._pause = min(max(2 * self._pause, self.shortest), self.cooldown)
        self._probe_at = self.clock() + self._pause

    def undecided(self) -> None:
        """Count the call neither as success nor as failure: it was cancelled, or failed for its own reason."""
        self._probing = False
