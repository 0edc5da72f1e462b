"""The long waits of thousands of connections, with one timer of the event loop for all."""

import asyncio
import math
from collections.abc import Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Final

GRID_SECONDS: Final = 0.1
"""A callback is called this much late at most, so that those of about the same time share a round of the loop."""
_FEW: Final = 64


class Timer:
    """A callback that waits for its time."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: "Timer") -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        self.callback = None

    def run(self) -> None:
        if self.callback is not None:
            self.callback()


class Timers:
    """As `loop.call_later`, for waits of seconds, in a quarter of the memory of uvloop's timers.

    Callbacks run in an empty context, not in that of whichever request has set the loop's timer.
    """

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._most = _FEW
        self._next: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many are kept, some of which may be cancelled."""
        return len(self._heap)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` in so many seconds, or up to GRID_SECONDS later."""
        timer = Timer(asyncio.get_running_loop().time() + seconds, callback)
        heappush(self._heap, timer)
        if self._heap[0] is timer:
            self._schedule()
        elif len(self._heap) > self._most:
            self._drop_cancelled()
        return timer

    def _drop_cancelled(self) -> None:
        self._heap = [timer for timer in self._heap if timer.callback is not None]
        heapify(self._heap)
        self._most = max(_FEW, 2 * len(self._heap))

    def _schedule(self) -> None:
        """Set the loop's timer for the first one, on the grid."""
        if self._next is not None:
            self._next.cancel()
        when = math.ceil(self._heap[0].when / GRID_SECONDS) * GRID_SECONDS
        self._next = asyncio.get_running_loop().call_at(when, self._run, context=Context())

    def _run(self) -> None:
        self._next, loop = None, asyncio.get_running_loop()
        while self._heap and self._heap[0].when <= loop.time():
            loop.call_soon(heappop(self._heap).run)  # so that one that fails ends no others
        if self._heap:
            self._schedule()
