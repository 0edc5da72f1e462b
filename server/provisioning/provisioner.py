"""The platform's way to a user's agent: one run per user in this process, shared by all who wait for it.

Owns the tasks of those runs, and of checks of refused keys, and caches the agents that are ready; the stored claim
keeps other instances out."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import uuid4

import structlog
from cachetools import TTLCache

from server.aio import SingleFlight, Sleep, StoppedError
from server.ports import Account, AccountStore, AgentHandle, FencedError, ProvisioningClaim
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.provisioning.introduction import Introduction
from server.provisioning.key_health import KeyHealth
from server.provisioning.saga import (
    CLAIM_SECONDS,
    NOTHING_SPECIAL,
    Observer,
    Order,
    ProvisioningError,
    Rotation,
    Saga,
)
from server.provisioning.steps import ProvisioningContext, is_complete, is_introduced
from server.resilience import Backoff, retry

log = structlog.get_logger(__name__)

CACHED_AGENTS: Final = 10_000
CACHED_SECONDS: Final = 60.0
"""How long a ready agent is taken for granted: another process (`chat users repair`) may replace it."""
CONCURRENT_RUNS: Final = 8
"""Letta serves about two turns a second on a core: a wave of registrations must not starve the conversations."""
RUN_AGAIN: Final = Backoff(first=0.5, longest=5.0)
CLAIM_POLL: Final = Backoff(first=0.2, longest=2.0)
"""Between two looks at an account that another instance provisions."""


@dataclass(slots=True)
class _Ready:
    """An agent that was ready. `is_introduced`: it need not be told its user's name."""

    agent: AgentHandle
    is_introduced: bool


class Provisioner:
    """Makes agents, and says when they are ready.

    `owner` names this instance in claims. `sleep` and `clock` (monotonic) in seconds. Close with `aclose`."""

    def __init__(
        self,
        store: AccountStore,
        context: ProvisioningContext,
        *,
        observer: Observer = lambda user_id, status, reason: None,
        owner: str | None = None,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._template = context.template
        self._saga = Saga(store, context, observer)
        self._owner = owner or f"provisioner-{uuid4()}"
        self._introduction = Introduction(store, context.directory, f"{self._owner}-name")
        self._key_health = KeyHealth(store, context, observer, f"{self._owner}-keys")
        self._sleep = sleep
        self._slots = asyncio.Semaphore(CONCURRENT_RUNS)
        self._runs: SingleFlight[str, AgentHandle] = SingleFlight("provisioning", ignored=(PlatformError,))
        self._key_checks: SingleFlight[str, None] = SingleFlight("key check")
        self._agents: TTLCache[str, _Ready] = TTLCache(CACHED_AGENTS, CACHED_SECONDS, timer=clock)
        self._closed = False

    async def ensure_account(self, user_id: str, email: str, name: str | None = None) -> Account:
        """The user's account, created if it is missing; an agent that is not ready is begun in the background.

        Raises PlatformError(supabase_unavailable)."""
        account = await self._store.ensure(user_id, email, name)
        if not account.agent_status.closed and not is_complete(account, self._template) and not self._closed:
            self.start(user_id)
        return account

    def start(self, user_id: str) -> None:
        """Begin in the background; a run that is under way goes on. Raises PlatformError(draining) after `aclose`."""
        with _draining():
            self._runs.start(user_id, partial(self._provision, user_id, NOTHING_SPECIAL))

    async def ready(
        self, user_id: str, email: str | None = None, name: str | None = None, *, timeout: float = 30.0
    ) -> AgentHandle:
        """The user's agent, made or brought up to date first where that is needed; waits up to `timeout` seconds.

        `email` creates a missing account. Raises PlatformError(agent_unavailable | account_blocked | not_found |
        draining)."""
        if (ready := self._agents.get(user_id)) is not None:
            return ready.agent
        return await self._insist(user_id, timeout, email, name)

    async def look_again(self, user_id: str, gone: AgentHandle, *, timeout: float) -> AgentHandle:
        """The agent to talk to after its service did not know `gone`: another one that is on record by now, the same if
        it is there after all, or a new one where it is gone for good, of which the user is told.

        Raises as `ready`, also when the service does not even know the user's organization: then nothing is made."""
        async with _bounded(timeout, []):
            await self._stand_by(user_id)
            account = await self._store.get(user_id)
        if account is not None and is_complete(account, self._template) and account.handle != gone:
            return self._cache(account)
        log.warning("agent.not_found", user_id=user_id, agent_id=gone.agent_id, conversation_id=gone.conversation_id)
        return await self._insist(user_id, timeout, order=Order("agent"))

    async def attempt(self, user_id: str, *, thorough: bool = False, rebuild: bool = False) -> AgentHandle:
        """One run to its end; `thorough` takes every step again, for agents that were damaged outside, and `rebuild`
        makes everything anew at an agent service that no longer knows the user.

        Raises ProvisioningError and what `ready` raises."""
        if thorough:
            await self._stand_by(user_id)
        return await self._run(user_id, Order("everything" if thorough else "missing", rebuild=rebuild))

    async def rotate_key(self, user_id: str, rotation: Rotation) -> AgentHandle:
        """Give the user another key, everywhere. A run that is cut off is continued by any other of this user.

        Raises as `attempt`."""
        await self._stand_by(user_id)
        return await self._run(user_id, Order("everything", rotation))

    async def introduce(self, user_id: str) -> None:
        """Tell the user's agent their name, if that has changed. Only while nothing runs at the agent. Raises nothing.

        What cannot be done now is tried again when the account is looked at anew: a minute later, or after `forget`."""
        ready = self._agents.get(user_id)
        if ready is None or not ready.is_introduced:
            await self._introduction.make(user_id)
            if ready is not None:
                ready.is_introduced = True  # in place: it is cached no longer for that

    def key_refused(self, user_id: str) -> None:
        """The model gateway has refused the user's key: check it in the background, once at a time. Raises nothing."""
        if not self._closed:
            self._key_checks.start(user_id, partial(self._check_key, user_id))

    def forget(self, user_id: str) -> None:
        """Look at the stored account next time: the cached agent no longer answers."""
        self._agents.pop(user_id, None)

    async def aclose(self) -> None:
        """Stop all runs (each can be continued by any instance) and give their claims back."""
        self._closed = True
        await asyncio.gather(self._runs.aclose(), self._key_checks.aclose())

    async def _stand_by(self, user_id: str) -> None:
        """Until no run of this user's is under way here."""
        self.forget(user_id)
        await self._runs.settled(user_id)

    async def _check_key(self, user_id: str) -> None:
        """A key that is good at the gateway was refused because the agent carries another: it is given the right one,
        as it is to an agent that was damaged outside."""
        try:
            if await self._key_health.check(user_id) == "active":
                await self.attempt(user_id, thorough=True)
        except PlatformError as error:
            log.warning("key.not_checked", user_id=user_id, code=error.code)

    async def _insist(
        self,
        user_id: str,
        timeout: float,
        email: str | None = None,
        name: str | None = None,
        order: Order = NOTHING_SPECIAL,
    ) -> AgentHandle:
        """Run again after what may pass by itself, for as long as the caller waits."""
        obstacles: list[PlatformError] = []

        async def attempt() -> AgentHandle:
            if email is not None:
                await self._store.ensure(user_id, email, name)
            return await self._run(user_id, order)

        async with _bounded(timeout, obstacles):
            return await retry(
                attempt,
                on=PlatformError,
                when=lambda error: not self._closed and _may_pass(error),
                backoff=RUN_AGAIN,
                failed=lambda error, _: obstacles.append(error),
                sleep=self._sleep,
            )

    async def _run(self, user_id: str, order: Order) -> AgentHandle:
        """The outcome of the user's run, begun if there is none. Raises PlatformError(draining) when it was stopped."""
        with _draining():
            return await self._runs.run(user_id, partial(self._provision, user_id, order))

    async def _provision(self, user_id: str, order: Order) -> AgentHandle:
        """Run the saga, or wait while another instance does; its claim expires if it died."""
        for pause in CLAIM_POLL.pauses():
            account = await self._store.get(user_id)
            if account is None:
                raise PlatformError(ErrorCode.NOT_FOUND, "This account does not exist.")
            if order.scope == "missing" and is_complete(account, self._template):
                return self._cache(account)
            account.refuse_closed()
            async with self._slots:
                claim = await self._store.claim(user_id, self._owner, CLAIM_SECONDS)
                if claim is not None:
                    return await self._work(claim, order)
            await self._sleep(pause)
        raise AssertionError("unreachable: the pauses never end")

    async def _work(self, claim: ProvisioningClaim, order: Order) -> AgentHandle:
        try:
            return self._cache(await self._saga.run(claim, order))
        except FencedError as cause:
            raise PlatformError(ErrorCode.AGENT_UNAVAILABLE, retry_after=1.0) from cause
        finally:
            await self._release(claim)

    async def _release(self, claim: ProvisioningClaim) -> None:
        try:
            await self._store.release(claim)
        except PlatformError as error:
            log.warning("provisioning.claim_not_released", user_id=claim.user_id, code=error.code)

    def _cache(self, account: Account) -> AgentHandle:
        account.refuse_closed()
        handle = account.handle
        assert handle is not None, "a finished saga has made every part of the agent"
        self._agents[account.user_id] = _Ready(handle, is_introduced(account))
        return handle


@asynccontextmanager
async def _bounded(timeout: float, obstacles: list[PlatformError]) -> AsyncIterator[None]:
    """For `timeout` seconds. Raises PlatformError(agent_unavailable) with the last of the obstacles met until then."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as cause:
        reason = obstacles[-1].message if obstacles else None
        raise PlatformError(ErrorCode.AGENT_UNAVAILABLE, reason, retry_after=5.0) from cause


@contextmanager
def _draining() -> Iterator[None]:
    """Raises PlatformError(draining) for what `aclose` has stopped."""
    try:
        yield
    except StoppedError as cause:
        raise PlatformError(ErrorCode.DRAINING) from cause


def _may_pass(error: PlatformError) -> bool:
    """Whether another run may succeed without anybody repairing anything."""
    return error.retryable and not (isinstance(error, ProvisioningError) and error.permanent)
