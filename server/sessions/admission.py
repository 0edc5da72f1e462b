"""How many turns one instance runs at once, and who is next.

Letta answers about ten turns a second per core, so turns beyond the limit wait here instead of there. Each user has at
most one turn in the queue, which makes first come, first served fair across users.
"""

import asyncio
from collections import deque

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

_FIRST_GUESS_SECONDS = 5.0
_SMOOTHING = 0.2


class Admission:
    """A counted gate. Every successful acquire is paired with one `release`."""

    def __init__(self, limit: int, longest_wait: float) -> None:
        self._free = limit
        self._limit = limit
        self._longest_wait = longest_wait
        self._queue: deque[asyncio.Future[None]] = deque()
        self._typical_seconds = _FIRST_GUESS_SECONDS

    @property
    def running(self) -> int:
        return self._limit - self._free

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def expected_wait(self) -> float:
        """Seconds until a turn that is queued now would start."""
        if self._free > 0:
            return 0.0
        return (len(self._queue) + 1) * self._typical_seconds / self._limit

    @property
    def overloaded(self) -> bool:
        """Whether a new turn would wait longer than the limit."""
        return self.expected_wait > self._longest_wait

    def refusal(self) -> PlatformError:
        """The error for a new turn, with the seconds after which to retry."""
        return PlatformError(ErrorCode.OVERLOADED, retry_after=max(self.expected_wait - self._longest_wait, 1.0))

    def try_acquire(self) -> bool:
        """Take a slot if one is free and no turn is queued for it. Returns True if it was taken."""
        if self._free == 0 or self._queue:
            return False
        self._free -= 1
        return True

    async def acquire(self) -> None:
        """Wait for a slot, in order."""
        if self.try_acquire():
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._pass_on()  # the slot was handed over in the moment of the cancellation
            elif turn in self._queue:
                self._queue.remove(turn)
            raise

    def release(self, seconds: float | None = None) -> None:
        """Free the slot. `seconds`: how long the turn ran, which `expected_wait` is estimated from."""
        if seconds is not None:
            self._typical_seconds += _SMOOTHING * (seconds - self._typical_seconds)
        self._pass_on()

    def _pass_on(self) -> None:
        while self._queue:
            following = self._queue.popleft()
            if not following.done():
                following.set_result(None)
                return
        self._free += 1
