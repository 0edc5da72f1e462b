"""The platform's access to a user's agent: one provisioning run per user in this process, shared by all callers.

Owns the tasks of those runs and of the checks of refused keys, and caches the agents that are ready. The stored claim
excludes other instances."""

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
from server.provisioning.address_sync import AddressSync
from server.provisioning.claims import CLAIM_SECONDS
from server.provisioning.key_health import KeyHealth
from server.provisioning.name_sync import NameSync
from server.provisioning.saga import (
    DEFAULT_OPTIONS,
    Observer,
    ProvisioningError,
    Rotation,
    RunOptions,
    Saga,
)
from server.provisioning.steps import ProvisioningContext, has_current_address, has_current_name, is_complete
from server.resilience import Backoff, retry

log = structlog.get_logger(__name__)

CACHED_AGENTS: Final = 10_000
CACHED_SECONDS: Final = 60.0
"""TTL of a ready agent in the cache. Short, since another process (`chat users repair`) may replace it."""
CONCURRENT_RUNS: Final = 8
"""Letta serves about ten turns a second on a core: many registrations at once must not starve the conversations."""
RETRY_BACKOFF: Final = Backoff(first=0.5, longest=5.0)
CLAIM_POLL: Final = Backoff(first=0.2, longest=2.0)
"""Between two polls of an account that another instance provisions."""


@dataclass(slots=True)
class _Ready:
    """A cached agent. `has_current_name`: its user's name need not be written to it."""

    agent: AgentHandle
    has_current_name: bool


class Provisioner:
    """Creates agents and returns them when they are ready.

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
        self._name_sync = NameSync(store, context.directory, f"{self._owner}-name")
        self._address_sync = AddressSync(store, context.billing, f"{self._owner}-address")
        self._key_health = KeyHealth(store, context, observer, f"{self._owner}-keys")
        self._sleep = sleep
        self._slots = asyncio.Semaphore(CONCURRENT_RUNS)
        self._runs: SingleFlight[str, AgentHandle] = SingleFlight("provisioning", ignored=(PlatformError,))
        self._key_checks: SingleFlight[str, None] = SingleFlight("key check")
        self._address_syncs: SingleFlight[str, None] = SingleFlight("address sync")
        self._agents: TTLCache[str, _Ready] = TTLCache(CACHED_AGENTS, CACHED_SECONDS, timer=clock)
        self._closed = False

    async def ensure_account(self, user_id: str, email: str, name: str | None = None) -> Account:
        """The user's account, created if it is missing. If its agent is not ready, or its billing customer has another
        address, a run starts in the background.

        Raises PlatformError(supabase_unavailable)."""
        account = await self._store.ensure(user_id, email, name)
        if account.agent_status.closed or self._closed:
            return account
        if not is_complete(account, self._template):
            self.start(user_id)
            return account
        if user_id not in self._agents:
            self._cache(account)
        if not has_current_address(account):
            self._address_syncs.start(user_id, partial(self._address_sync.run, user_id))
        return account

    def start(self, user_id: str) -> None:
        """Start a run in the background unless one is active. Raises PlatformError(draining) after `aclose`."""
        with _draining():
            self._runs.start(user_id, partial(self._provision, user_id, DEFAULT_OPTIONS))

    async def ready(
        self, user_id: str, email: str | None = None, name: str | None = None, *, timeout: float = 30.0
    ) -> AgentHandle:
        """The user's agent, created or updated first if necessary; waits up to `timeout` seconds.

        `email` creates a missing account. Raises PlatformError(agent_unavailable | account_blocked | not_found |
        draining)."""
        if (ready := self._agents.get(user_id)) is not None:
            return ready.agent
        return await self._run_with_retries(user_id, timeout, email, name)

    def prefetch(self, user_id: str) -> None:
        """Begin to read the user's agent, unless it is cached: a turn is about to need it. Raises nothing."""
        if user_id not in self._agents and not self._closed:
            self.start(user_id)

    async def find_or_replace(self, user_id: str, gone: AgentHandle, *, timeout: float) -> AgentHandle:
        """The agent to use after its service did not find `gone`: the one that was stored since then, the same one if
        the service finds it now, or a new one, which the status reason says to the user.

        Raises as `ready`, also if the service does not know the user's organization; then nothing is created."""
        async with _bounded(timeout, []):
            await self._wait_for_active_run(user_id)
            account = await self._store.get(user_id)
        if account is not None and is_complete(account, self._template) and account.handle != gone:
            return self._cache(account)
        log.warning("agent.not_found", user_id=user_id, agent_id=gone.agent_id, conversation_id=gone.conversation_id)
        return await self._run_with_retries(user_id, timeout, options=RunOptions("agent"))

    async def attempt(self, user_id: str, *, thorough: bool = False, rebuild: bool = False) -> AgentHandle:
        """Complete one run, without retries. `thorough` repeats every step, for agents that were changed outside the
        platform; `rebuild` creates everything again at an agent service that no longer knows the user.

        Raises ProvisioningError and what `ready` raises."""
        if thorough:
            await self._wait_for_active_run(user_id)
        return await self._run(user_id, RunOptions("everything" if thorough else "missing", rebuild=rebuild))

    async def rotate_key(self, user_id: str, rotation: Rotation) -> AgentHandle:
        """Replace the user's key at LiteLLM and at the agent. The user's next run continues an interrupted one.

        Raises as `attempt`."""
        await self._wait_for_active_run(user_id)
        return await self._run(user_id, RunOptions("everything", rotation))

    async def sync_name(self, user_id: str) -> None:
        """Write the user's name to the agent, if it has changed. Only while no run of the agent is active. Raises
        nothing.

        A failure is retried after the account has been read again: when its TTL has passed, or after `evict`."""
        ready = self._agents.get(user_id)
        if ready is None or not ready.has_current_name:
            await self._name_sync.run(user_id)
            if ready is not None:
                ready.has_current_name = True  # in place, so that its TTL does not begin again

    async def sync_address(self, user_id: str) -> None:
        """Give the user's billing customer the profile's address. Raises PlatformError(draining)."""
        with _draining():
            await self._address_syncs.run(user_id, partial(self._address_sync.run, user_id))

    def key_refused(self, user_id: str) -> None:
        """Check a key that the model gateway refused, in the background, one check per user at a time. Raises
        nothing."""
        if not self._closed:
            self._key_checks.start(user_id, partial(self._check_key, user_id))

    def evict(self, user_id: str) -> None:
        """Remove the user's agent from the cache, so that the next call reads the stored account."""
        self._agents.pop(user_id, None)

    async def aclose(self) -> None:
        """Stop all runs and release their claims. Any instance can continue them."""
        self._closed = True
        await asyncio.gather(self._runs.aclose(), self._key_checks.aclose(), self._address_syncs.aclose())

    async def _wait_for_active_run(self, user_id: str) -> None:
        """Evict the user's agent and wait until this process runs nothing for the user."""
        self.evict(user_id)
        await self._runs.wait_until_idle(user_id)

    async def _check_key(self, user_id: str) -> None:
        """Check the key. If it is active at the gateway, the agent uses another one, and a thorough run replaces it."""
        try:
            if await self._key_health.check(user_id) == "active":
                await self.attempt(user_id, thorough=True)
        except PlatformError as error:
            log.warning("key.not_checked", user_id=user_id, code=error.code)

    async def _run_with_retries(
        self,
        user_id: str,
        timeout: float,
        email: str | None = None,
        name: str | None = None,
        options: RunOptions = DEFAULT_OPTIONS,
    ) -> AgentHandle:
        """Run, and retry after temporary failures, for `timeout` seconds."""
        failures: list[PlatformError] = []

        async def attempt() -> AgentHandle:
            if email is not None:
                await self._store.ensure(user_id, email, name)
            return await self._run(user_id, options)

        async with _bounded(timeout, failures):
            return await retry(
                attempt,
                on=PlatformError,
                when=lambda error: not self._closed and _is_temporary(error),
                backoff=RETRY_BACKOFF,
                failed=lambda error, _: failures.append(error),
                sleep=self._sleep,
            )

    async def _run(self, user_id: str, options: RunOptions) -> AgentHandle:
        """The result of the user's active run, or of a new one. Raises PlatformError(draining) when it was stopped."""
        with _draining():
            return await self._runs.run(user_id, partial(self._provision, user_id, options))

    async def _provision(self, user_id: str, options: RunOptions) -> AgentHandle:
        """Run the saga, or poll while another instance runs it; its claim expires if it crashed."""
        for pause in CLAIM_POLL.pauses():
            account = await self._store.get(user_id)
            if account is None:
                raise PlatformError(ErrorCode.NOT_FOUND, "This account does not exist.")
            if options.scope == "missing" and is_complete(account, self._template):
                return self._cache(account)
            account.refuse_closed()
            async with self._slots:
                claim = await self._store.claim(user_id, self._owner, CLAIM_SECONDS)
                if claim is not None:
                    return await self._run_claimed(claim, options)
            await self._sleep(pause)
        raise AssertionError("unreachable: the pauses never end")

    async def _run_claimed(self, claim: ProvisioningClaim, options: RunOptions) -> AgentHandle:
        try:
            claim.account.refuse_closed()  # since it was read, the user may have been deleted
            return self._cache(await self._saga.run(claim, options))
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
        assert handle is not None, "a completed saga has created every part of the agent"
        self._agents[account.user_id] = _Ready(handle, has_current_name(account))
        return handle


@asynccontextmanager
async def _bounded(timeout: float, failures: list[PlatformError]) -> AsyncIterator[None]:
    """Bound a block to `timeout` seconds. Raises PlatformError(agent_unavailable) with the message of the last
    failure."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as cause:
        reason = failures[-1].message if failures else None
        raise PlatformError(ErrorCode.AGENT_UNAVAILABLE, reason, retry_after=5.0) from cause


@contextmanager
def _draining() -> Iterator[None]:
    """Raise PlatformError(draining) for a run that `aclose` has stopped."""
    try:
        yield
    except StoppedError as cause:
        raise PlatformError(ErrorCode.DRAINING) from cause


def _is_temporary(error: PlatformError) -> bool:
    """Whether a retry may succeed without an operator."""
    return error.retryable and not (isinstance(error, ProvisioningError) and error.permanent)
