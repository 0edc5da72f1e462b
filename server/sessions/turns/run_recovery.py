"""Which run of the agent belongs to an attempt, and how it ended: from the agent's service and from our rows."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from server.ports import AgentEvent, AgentGateway, AgentHandle, Run, SessionStore
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Turn
from server.resilience.retry import Backoff, retry
from server.sessions.store_retry import retry_while_unavailable

T = TypeVar("T")
_SLACK_SECONDS = 5.0
"""An attempt is a little older than we count, and the services' timestamps have whole seconds."""


class RunLostError(Exception):
    """The agent's service does not find the run, or restarted in the middle of it."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long an attempt waits before it polls again, in seconds. Tests turn them down.

    `orphan`: a run that still runs so long after its service was unavailable has died with it.
    """

    busy: float = 5.0
    cancel_again: float = 1.0
    adopt: float = 10.0
    poll_first: float = 0.25
    poll_longest: float = 2.0
    orphan: float = 20.0


class Runs:
    """The agent's runs as one attempt sees them.

    Calls are repeated while the service is unavailable, until the deadline of the attempt: the reply is paid for.
    """

    def __init__(
        self, store: SessionStore, gateway: AgentGateway, pauses: Pauses, turn: Turn, age: Callable[[], float]
    ) -> None:
        """`age`: seconds since the attempt was started. No clock is compared with another: any of them may be wrong."""
        self._age = age
        self._store = store
        self._gateway = gateway
        self._pauses = pauses
        self._turn = turn

    async def find(self, agent: AgentHandle) -> str | None:
        """The run of an attempt that may have been sent without its id being stored: poll, wait, poll once more."""
        for pause in (self._pauses.adopt, 0.0):
            if runs := await self._begun_since(agent):
                return runs[-1]
            await asyncio.sleep(pause)
        return None

    async def is_own(self, agent: AgentHandle, run_id: str) -> bool:
        """Whether a run that holds the conversation is this attempt's: by the rows, or, unknown there, by its time."""
        owner = await self._turn_of(run_id)
        return self._is_this(owner, run_id) or (owner is None and run_id in await self._begun_since(agent))

    async def wait_until_ended(self, agent: AgentHandle, run_id: str) -> list[AgentEvent]:
        """Wait for a run that goes on without our stream, and read its events. Raises RunLostError."""
        now = asyncio.get_running_loop().time
        given_up_at = math.inf
        for pause in Backoff(self._pauses.poll_first, self._pauses.poll_longest).pauses():
            try:
                run = await self._gateway.run(agent, run_id)
                if run is not None and run.status != "running":
                    return await self._gateway.reply(agent, run_id)
            except PlatformError as error:
                if not _is_unavailable(error):
                    raise
                given_up_at = now() + self._pauses.orphan
            else:
                if run is None or now() > given_up_at:
                    # Deleted, or the service restarted in the middle of it: free the conversation for the next turn.
                    await self._gateway.cancel(agent, run_id)
                    raise RunLostError
            await asyncio.sleep(pause)
        raise AssertionError("unreachable: the pauses never end")

    async def _begun_since(self, agent: AgentHandle) -> list[str]:
        """Runs that began since this attempt was started and belong to no other turn."""
        found = await self._answered(partial(self._gateway.runs_within, agent, self._age() + _SLACK_SECONDS))
        return [run.id for run in found if await self._may_be_this(run)]

    async def _may_be_this(self, run: Run) -> bool:
        owner = await self._turn_of(run.id)
        return owner is None or self._is_this(owner, run.id)

    def _is_this(self, owner: Turn | None, run_id: str) -> bool:
        """Whether the rows give the run to this attempt: an earlier attempt at the same turn had another one."""
        return owner is not None and owner.id == self._turn.id and owner.run_id == run_id

    async def _turn_of(self, run_id: str) -> Turn | None:
        return await retry_while_unavailable(
            partial(self._store.turn_by_run, self._turn.user_id, run_id), self._turn.user_id
        )

    async def _answered(self, call: Callable[[], Awaitable[T]]) -> T:
        pause = self._pauses.poll_longest
        return await retry(call, on=PlatformError, when=_is_unavailable, backoff=Backoff(pause, pause))


def _is_unavailable(error: PlatformError) -> bool:
    return error.code is ErrorCode.LETTA_UNAVAILABLE
