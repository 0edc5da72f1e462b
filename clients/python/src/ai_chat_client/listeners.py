"""Two ways to follow something: a callback, and `async for`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Listeners(Generic[T]):
    """What is emitted reaches each listener in the event loop's next round, so that one that raises stops no other."""

    def __init__(self) -> None:
        self._all: dict[object, Callable[[T | None], None]] = {}

    def add(self, listener: Callable[[T | None], None]) -> Callable[[], None]:
        """Returns a function that ends it. None is the end."""
        key = object()
        self._all[key] = listener
        return lambda: self._all.pop(key, None) and None

    def emit(self, event: T | None) -> None:
        for listener in self._all.values():
            asyncio.get_running_loop().call_soon(listener, event)

    def iterate(self) -> AsyncIterator[T]:
        """All from now on, until the end, or until the loop is left."""
        waiting: asyncio.Queue[T | None] = asyncio.Queue()
        stop = self.add(waiting.put_nowait)

        async def events() -> AsyncIterator[T]:
            try:
                while (event := await waiting.get()) is not None:
                    yield event
            finally:
                stop()

        return events()
