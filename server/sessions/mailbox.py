"""The mailbox of a session: commands are carried out one at a time, in order, also when their caller was cancelled."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from server.aio import cancel_and_wait
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

T = TypeVar("T")
Command = Callable[[], Awaitable[Any]]
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]

MOST_COMMANDS: Final = 64
"""A connection asks one thing at a time, and REST clients wait for answers: more than this is abuse."""


class Mailbox:
    """Its task exists only while there is a command, so that an idle session holds none.

    `settled` is called when a command was the last one for now.
    """

    __slots__ = ("_actor", "_commands", "_settled", "_spawn")

    def __init__(self, spawn: Spawn, settled: Callable[[], None] = lambda: None) -> None:
        self._spawn = spawn
        self._settled = settled
        self._commands: list[tuple[Command, asyncio.Future[Any]]] = []
        self._actor: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a command is being carried out or waits."""
        return self._actor is not None

    async def idle(self) -> None:
        """Return when no command is being carried out or waits."""
        while self._actor is not None:
            await asyncio.wait((self._actor,))

    async def do(self, command: Callable[[], Awaitable[T]], *, always: bool = False) -> T:
        """Carry out the command after those before it. Raises what it raises, PlatformError(draining) if cut short,
        PlatformError(rate_limited) where too many wait already, unless it is `always` taken."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if len(self._commands) >= MOST_COMMANDS and not always:
            raise PlatformError(ErrorCode.RATE_LIMITED, retry_after=1.0)
        self._commands.append((command, answer))
        if self._actor is None:
            self._actor = self._spawn(self._act())
        return await answer

    async def aclose(self) -> None:
        """Stop at once. Whether the command under way took effect is for its repetition to find out."""
        await cancel_and_wait(self._actor)
        self._refuse(None)  # one that was cancelled before it began has sent no answer

    async def _act(self) -> None:
        answer: asyncio.Future[Any] | None = None
        try:
            while self._commands:
                command, answer = self._commands.pop(0)
                try:
                    result = await command()
                except Exception as error:
                    if not answer.done():
                        answer.set_exception(error)
                else:
                    if not answer.done():
                        answer.set_result(result)
                if not self._commands:
                    self._settled()
        finally:
            self._refuse(answer)

    def _refuse(self, current: "asyncio.Future[Any] | None") -> None:
        self._actor = None
        unanswered = [] if current is None else [current]
        unanswered += [answer for _, answer in self._commands]
        self._commands.clear()
        for answer in unanswered:
            if not answer.done():
                answer.set_exception(PlatformError(ErrorCode.DRAINING, retry_after=1.0))
