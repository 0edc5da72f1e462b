"""Carries a session through its life cycle: keeps its state, and carries out the effects that `state.py` returns."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import structlog

from server.protocol.errors import PlatformError
from server.resilience.retry import Backoff
from server.sessions.context import SessionContext
from server.sessions.mailbox import Mailbox
from server.sessions.state import Effect, Event, Facts, Phase, SessionState, transition

log = structlog.get_logger(__name__)
EFFECT_BACKOFF: Final = Backoff(0.25, 5.0)
QUIET: Final = frozenset({Phase.FOLLOWING, Phase.OWNER_IDLE, Phase.LOST})


class Actor(Protocol):
    """What goes through the life cycle. `commands` carry out an effect each, in the mailbox; they change nothing
    if the phase has changed by then."""

    user_id: str

    @property
    def commands(self) -> Mapping[Effect, Callable[[], Awaitable[None]]]: ...

    def facts(self) -> Facts: ...

    async def failed(self, error: Exception) -> None:
        """A command failed for a reason that is not foreseen, or because of another owner."""
        ...


class LifeCycle:
    """An effect that takes time is a task of its own, cancelled when the phase changes, and retried until then."""

    __slots__ = ("_actor", "_context", "_effect", "_mailbox", "_quiet", "state")

    def __init__(self, actor: Actor, context: SessionContext) -> None:
        self.state = SessionState()
        self._actor = actor
        self._context = context
        self._mailbox = Mailbox(context.spawn, self._settled)
        self._effect: asyncio.Task[None] | None = None
        self._quiet: asyncio.Future[None] | None = None

    @property
    def phase(self) -> Phase:
        return self.state.phase

    @property
    def mailbox(self) -> Mailbox:
        return self._mailbox

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being done that could need or bring a lease."""
        return not self._mailbox.is_busy and self.phase in QUIET

    async def quiet(self) -> None:
        """Return when nothing is being done here, and the lease was released, or is kept with nothing to do."""
        while not self.is_quiet:
            await self._mailbox.idle()
            if self.phase in QUIET:
                continue
            if self._quiet is None:
                self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._quiet)

    def settle(self) -> None:
        """Do what comes next, if anything does. The mailbox does this by itself after its commands."""
        if not self._mailbox.is_busy:
            self.move(Event.SETTLED)

    def _settled(self) -> None:
        self.move(Event.SETTLED)

    def move(self, event: Event) -> bool:
        """Returns True if the phase is another one now."""
        before = self.state
        self.state, effect = transition(before, event, self._actor.facts())
        if self.phase is before.phase:
            return False
        moved = {"before": before.phase.value, "phase": self.phase.value, "cause": event.value}
        log.debug("session.moved", user_id=self._actor.user_id, **moved)
        self._end_effect()
        if self._quiet is not None and self.phase in QUIET:
            self._quiet.set_result(None)
            self._quiet = None
        if effect is not None:
            self._effect = self._context.spawn(self._carry_out(effect))
        return True

    def _end_effect(self) -> None:
        effect, self._effect = self._effect, None
        if effect is not None and effect is not asyncio.current_task():
            effect.cancel()

    async def _carry_out(self, effect: Effect) -> None:
        """Until the phase is another one, which cancels this."""
        pauses = EFFECT_BACKOFF.pauses()
        while True:
            try:
                if effect is Effect.ACQUIRE_SLOT:
                    await self._context.admission.acquire()
                await self._mailbox.do(self._actor.commands[effect], always=True)
                pause = self._context.claim_pause
            except PlatformError as error:
                pause = next(pauses)
                log.warning("session.effect_failed", user_id=self._actor.user_id, effect=effect, code=error.code)
            except Exception as error:
                await self._actor.failed(error)
                return
            await asyncio.sleep(pause)
