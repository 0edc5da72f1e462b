"""An event loop whose clock jumps to the next timer when nothing is left to do: minutes pass at once, in order.

Sockets work too: with a `grace`, the loop waits that many real seconds for the kernel before it lets time jump.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")
_BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)
_STUCK_SECONDS = 10.0


class StuckError(Exception):
    """Every task waits and no timer is set: the test would never end."""


class _Selector(selectors.DefaultSelector):
    """Advances the loop's time instead of waiting for a timeout."""

    def __init__(self, grace: float) -> None:
        super().__init__()
        self._grace = grace
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        ready = super().select(_STUCK_SECONDS if timeout is None and self._grace else self._grace)
        if not ready and timeout is None:
            raise StuckError("every task waits and no timer is set")
        if not ready and timeout is not None:
            self.passed += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`grace`: real seconds of silence on all sockets before time jumps; 0 where a test uses no sockets."""

    def __init__(self, grace: float = 0.0) -> None:
        self._virtual = _Selector(grace)
        super().__init__(self._virtual)

    def time(self) -> float:
        return 1_000.0 + self._virtual.passed


def now() -> datetime:
    """The wall clock that goes with the running loop's time."""
    return _BEGINNING + timedelta(seconds=asyncio.get_running_loop().time())


def virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on a loop of its own in virtual time."""
    return _run_on(VirtualTimeLoop, test)


def virtual_time_with_sockets(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """As `virtual_time`, for tests with loopback sockets within this process."""
    return _run_on(lambda: VirtualTimeLoop(grace=0.02), test)


def _run_on(
    new_loop: Callable[[], asyncio.AbstractEventLoop], test: Callable[P, Coroutine[Any, Any, None]]
) -> Callable[P, None]:
    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(*args, **kwargs))

    return run
