"""One attempt at one turn: send it to the agent, follow its run to the end also when the stream breaks, return the end.

An attempt changes nothing but the session's event log; its owner stores the `TurnEnd` it returns.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import structlog

from server.aio import cancel_and_wait
from server.ports import (
    AgentBusyError,
    AgentGateway,
    AgentGoneError,
    AgentHandle,
    Estimate,
    FencedError,
    Forgotten,
    Lease,
    OutgoingMessage,
    SessionStore,
    StreamBrokenError,
    TurnEnd,
)
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.protocol.shapes import Turn, TurnError, TurnStatus, Usage
from server.protocol.text import is_readable
from server.sessions.events.log import EventLog
from server.sessions.store_retry import retry_while_unavailable
from server.sessions.turns.reminders import reminders
from server.sessions.turns.reply import Reply
from server.sessions.turns.run_recovery import Pauses, RunLostError, Runs
from server.sessions.turns.verdict import EndStatus, Verdict, of_completed

log = structlog.get_logger(__name__)

_BUSY_ATTEMPTS = 3
_TIMED_OUT = TurnError(ErrorCode.TURN_TIMEOUT, "The reply took longer than the limit.", retryable=True)
_LOST = TurnError(ErrorCode.LETTA_UNAVAILABLE, "The agent was lost in the middle of its reply.", retryable=True)


class Agents(Protocol):
    """A user's agent, provisioned or repaired on demand."""

    async def ready(self, user_id: str, *, timeout: float) -> AgentHandle:
        """Raises PlatformError(agent_unavailable | account_blocked)."""
        ...

    def prefetch(self, user_id: str) -> None:
        """Begin to prepare the agent, so that `ready` need not wait for what was read meanwhile. Raises nothing."""
        ...

    async def find_or_replace(self, user_id: str, gone: AgentHandle, *, timeout: float) -> AgentHandle:
        """The agent to use after its service did not find `gone`; a new one if that was deleted.

        Raises PlatformError(agent_unavailable | account_blocked)."""
        ...

    async def sync_name(self, user_id: str) -> None:
        """Write the user's name to the agent, if it has changed. Only while no run is under way. Raises nothing."""
        ...

    def key_refused(self, user_id: str) -> None:
        """The model gateway has refused the user's key. Returns at once and raises nothing."""
        ...


class Pricing(Protocol):
    async def estimate(self, usage: Usage) -> Estimate:
        """What these tokens cost at the listed prices. Raises nothing: a turn ends also while no price is known."""
        ...


@dataclass(frozen=True, slots=True)
class AttemptServices:
    """What every attempt works with."""

    store: SessionStore
    gateway: AgentGateway
    agents: Agents
    pricing: Pricing
    limits: Limits
    pauses: Pauses = field(default_factory=Pauses)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


class Attempt:
    """Runs once. `stop()` asks it to end early with the text so far.

    `may_send` is False while the lease may have run out: another owner could send the same message. An attempt that is
    taken over was started `age` seconds ago by its last owner.
    """

    def __init__(
        self,
        services: AttemptServices,
        events: EventLog,
        lease: Lease,
        turn: Turn,
        forgotten: Sequence[Forgotten],
        *,
        may_send: Callable[[], bool] = lambda: True,
        is_taken_over: bool = False,
        age: float = 0.0,
    ) -> None:
        self._services = services
        self._lease = lease
        self._forgotten = tuple(forgotten)
        self._may_send = may_send
        self._taken_over = is_taken_over
        self._spent = age
        self._stop = asyncio.Event()
        self._deadline = asyncio.timeout(None)
        self._timed_out = False
        self._agent: AgentHandle | None = None
        self._replaced_agent = False
        self.sent_after: float | None = 0.0 if is_taken_over else None  # if taken over: it may have been sent
        self._streamed_here = not is_taken_over
        self._storing: asyncio.Task[None] | None = None
        self._begun = asyncio.get_running_loop().time() - self._spent
        self._runs = Runs(services.store, services.gateway, services.pauses, turn, self._age)
        self.turn = turn
        limit = services.limits.event_text_bytes
        said = events.reply(turn.id, turn.attempt)
        self.reply = Reply(events, turn.id, turn.attempt, limit, run_id=turn.run_id, said=said)

    def stop(self) -> None:
        """The user asked for the end: the text freezes now, the run is cancelled by `run`."""
        self._freeze()
        self._stop.set()

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set()

    def _freeze(self) -> None:
        """Publish no more text. What the run wrote under an earlier owner is still published."""
        if self._streamed_here:
            self.reply.freeze()

    async def run(self) -> TurnEnd:
        """Follow the attempt to its end. Cancelling this leaves the agent's run going, to be recovered later.

        Raises FencedError when the message may not be sent because the lease may have run out.
        """
        stream = asyncio.ensure_future(self._follow())
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await self._wait_for_either(stream, stop)
            if not stream.done():
                self._freeze()
                await self._stop_run(stream)
            end = await self._end(await self._problem(stream))
            if self._storing is not None:
                await self._storing  # a run without its turn could be adopted by the next one
            return end
        finally:
            await cancel_and_wait(stream, stop, self._storing)

    def _age(self) -> float:
        """Seconds since the attempt was started."""
        return asyncio.get_running_loop().time() - self._begun

    async def _wait_for_either(self, *either: "asyncio.Future[Any]") -> None:
        try:
            async with self._deadline:
                self._deadline.reschedule(asyncio.get_running_loop().time() + self._time_left())
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            self._timed_out = True

    def _time_left(self) -> float:
        left = self._services.limits.turn_seconds - self._spent
        # An attempt taken over late still gets the time to look at its run and read its reply.
        return max(left, self._services.pauses.orphan) if self._taken_over else left

    # -- following the run ---------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        # A run that is taken over was paid for: its reply is worth waiting for longer than a message that was not sent.
        timeout = self._time_left() if self._taken_over else self._services.limits.provisioning_seconds
        self._agent = await self._services.agents.ready(self.turn.user_id, timeout=timeout)
        if self._taken_over and await self._follow_last_owners_run(self._agent):
            return
        await self._services.agents.sync_name(self.turn.user_id)
        for _ in range(_BUSY_ATTEMPTS):
            if self._stop.is_set() or self._deadline.expired():
                return
            try:
                await self._send(self._agent)
                return
            except AgentGoneError as gone:
                run_id = None
                self._agent = await self._agent_instead_of(self._agent, gone)
            except AgentBusyError as busy:
                run_id = await self._free_conversation(self._agent, busy.run_id)
            except StreamBrokenError:
                run_id = self.reply.run_id or await self._find_run(self._agent)
                if run_id is None:
                    raise RunLostError from None
            if run_id is not None:
                await self._recover(self._agent, run_id)
                return
        raise PlatformError(ErrorCode.AGENT_UNAVAILABLE, "The agent is still busy with an earlier message.")

    async def _follow_last_owners_run(self, agent: AgentHandle) -> bool:
        """Recover the run of an attempt that was taken over. Returns False if none was begun: send the message."""
        run_id = self.reply.run_id or await self._find_run(agent)
        if run_id is not None:
            await self._recover(agent, run_id)
            return True
        if not self.reply.blank:
            raise RunLostError  # it was sent, and even answered: never a second time
        return False

    async def _agent_instead_of(self, unknown: AgentHandle, gone: AgentGoneError) -> AgentHandle:
        """The agent to send to in place of one that is unknown, once in an attempt. Raises RunLostError if the last
        owner may have sent the message to the agent that was deleted: a message is never sent twice."""
        if self._replaced_agent:
            raise gone
        self._replaced_agent = True
        timeout = self._services.limits.provisioning_seconds
        agent = await self._services.agents.find_or_replace(self.turn.user_id, unknown, timeout=timeout)
        if self._taken_over:
            raise RunLostError
        return agent

    async def _send(self, agent: AgentHandle) -> None:
        if not self._may_send():
            raise FencedError(f"the lease of {self.turn.user_id} may have run out")
        self._streamed_here = True
        self.sent_after = self._age()
        self._deadline.reschedule(asyncio.get_running_loop().time() + self._services.limits.turn_seconds)
        async with self._services.gateway.send(agent, self._outgoing()) as events:
            async for event in events:
                self.reply.feed(event)
                if self._storing is None and (run_id := self.reply.run_id) is not None:
                    self._storing = asyncio.create_task(self._store_run(run_id))
        if self.reply.ended is None:
            raise StreamBrokenError

    def _outgoing(self) -> list[OutgoingMessage]:
        reminding = reminders(self._forgotten, self._services.limits.reminder_bytes)
        return [*reminding, OutgoingMessage("user", self.turn.user_message.content)]

    async def _store_run(self, run_id: str) -> None:
        """Beside the stream, which must not wait for it. Without it, recovery finds the run by its time."""
        try:
            await retry_while_unavailable(
                partial(self._services.store.set_run, self._lease, self.turn.id, self.turn.attempt, run_id),
                self.turn.user_id,
            )
        except (PlatformError, FencedError) as error:
            log.warning("turn.run_not_stored", turn_id=self.turn.id, run_id=run_id, error=str(error))

    async def _free_conversation(self, agent: AgentHandle, run_id: str | None) -> str | None:
        """The conversation is locked. Returns the run to follow if it is this turn's own, else frees the lock."""
        if run_id is not None and await self._runs.is_own(agent, run_id):
            return run_id
        log.warning("turn.conversation_busy", turn_id=self.turn.id, run_id=run_id)
        await asyncio.sleep(self._services.pauses.busy)
        await self._services.gateway.cancel(agent, run_id)
        return None

    async def _find_run(self, agent: AgentHandle) -> str | None:
        run_id = await self._runs.find(agent)
        if run_id is not None:
            self.reply.run_id = run_id
            await self._store_run(run_id)
        return run_id

    async def _recover(self, agent: AgentHandle, run_id: str) -> None:
        """Wait for a run that goes on without our stream, then publish the rest of its text."""
        log.info("turn.recovering", turn_id=self.turn.id, run_id=run_id)
        self.reply.complete_from(await self._runs.wait_until_ended(agent, run_id))

    # -- the end -------------------------------------------------------------------------------------------------

    async def _stop_run(self, stream: "asyncio.Future[None]") -> None:
        """Cancel the agent's run and give its stream a few seconds to end by itself.

        A run that is only just being created is not there to be cancelled yet, so the request is repeated.
        """
        if self.sent_after is None:
            return
        timeout = self._services.limits.cancel_seconds
        try:
            async with asyncio.timeout(timeout):
                agent = self._agent or await self._services.agents.ready(self.turn.user_id, timeout=timeout)
                while not stream.done():
                    await self._cancel_run(agent)
                    await asyncio.wait({stream}, timeout=self._services.pauses.cancel_again)
        except (TimeoutError, PlatformError) as error:
            log.warning("turn.cancel_unanswered", turn_id=self.turn.id, error=str(error))

    async def _cancel_run(self, agent: AgentHandle) -> None:
        """Ask once. While the service is unavailable this is repeated until `cancel_seconds`: the run is billed."""
        try:
            await self._services.gateway.cancel(agent, self.reply.run_id)
        except PlatformError as error:
            log.warning("turn.cancel_refused", turn_id=self.turn.id, code=error.code)

    async def _problem(self, stream: "asyncio.Future[None]") -> TurnError | None:
        """What went wrong on our side of the run, if anything did."""
        if not stream.done():
            return None
        try:
            await stream
        except PlatformError as error:
            return TurnError(error.code, error.message, error.retryable, error.retry_after_seconds)
        except (RunLostError, StreamBrokenError):
            return _LOST
        return None

    async def _end(self, problem: TurnError | None) -> TurnEnd:
        reply, status = self.reply, self._status()
        verdict = Verdict(status)
        if status is TurnStatus.COMPLETED:
            reply.release()  # where the request to stop came too late: the agent remembers it whole
            verdict = of_completed(reply, is_stopped=self._stop.is_set())
        elif status is TurnStatus.FAILED:
            verdict = self._failure(problem)
        return TurnEnd(
            turn_id=self.turn.id,
            attempt=self.turn.attempt,
            status=verdict.status,
            text=reply.text if is_readable(reply.text) else "",
            usage=reply.usage,
            estimate=await self._estimate(status),
            sent_after=self.sent_after,
            error=verdict.error,
            reason=verdict.reason,
            carried=self._carried(status, verdict.status),
            run_completed=status is TurnStatus.COMPLETED,
            steps=reply.steps,
        )

    def _failure(self, problem: TurnError | None) -> Verdict:
        reply = self.reply
        error = _TIMED_OUT if self._timed_out else problem or (reply.ended and reply.ended.error) or _LOST
        if error.code is ErrorCode.KEY_REFUSED:
            self._services.agents.key_refused(self.turn.user_id)
        if error.code is ErrorCode.CONTENT_REFUSED and self._forgotten:
            error = replace(error, retryable=True)  # it may be a reminder that was refused: those are not sent again
        is_unsent = error.code is ErrorCode.BUDGET_EXCEEDED and reply.blank
        return Verdict(TurnStatus.UNSENT if is_unsent else TurnStatus.FAILED, error)

    def _carried(self, run: EndStatus, turn: EndStatus) -> tuple[str, ...]:
        """The turns that need not be sent again: the agent remembers what a completed run was sent, and the model would
        refuse again what it has refused, together with the next message."""
        sent = tuple(forgotten.turn_id for forgotten in self._forgotten)
        is_refused = run is TurnStatus.FAILED and self.reply.ended is not None and self.reply.ended.refused
        if turn is TurnStatus.COMPLETED:
            return sent
        return (*sent, self.turn.id) if is_refused or run is TurnStatus.COMPLETED else ()

    def _status(self) -> EndStatus:
        ended = self.reply.ended
        if ended is not None and ended.status is TurnStatus.COMPLETED:
            return TurnStatus.COMPLETED
        if self._stop.is_set():
            return TurnStatus.CANCELLED
        if self._timed_out or ended is None:
            return TurnStatus.FAILED
        return ended.status

    async def _estimate(self, status: EndStatus) -> Estimate | None:
        """The estimated cost of a completed reply. Of others it is not known which calls were charged."""
        if self.reply.usage is None or status is not TurnStatus.COMPLETED:
            return None
        return await self._services.pricing.estimate(self.reply.usage)
