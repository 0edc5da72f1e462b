"""Deletes accounts: a saga of steps that may each be repeated, so that a run after any crash or failure completes it.

The only state is the account's status `deleting`, stored before the first step and deleted together with the account by
the last one. Runs under the account's provisioning claim, so that nothing is created meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol
from uuid import uuid4

import structlog

from server.aio import SingleFlight, Sleep, StoppedError, every
from server.ports import Account, AccountStore, AgentDirectory, BillingGateway, FencedError, ProvisioningClaim
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, Turn
from server.provisioning.claims import CLAIM_SECONDS, renewing
from server.resilience import Backoff, FailureBackoff

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 30.0
"""Between two polls for deletions that a crash or an unavailable service interrupted."""
JITTER: Final = 0.3
BATCH: Final = 100
AFTER_FAILURE: Final = Backoff(first=60.0, longest=3600.0)
"""Backoff of a user whose deletion failed for a reason that does not concern all users."""
STEP_SECONDS: Final = 180.0
"""Long, since an agent with a long history is deleted by one call."""
WAIT_SECONDS: Final = 20.0
"""How long a run waits for the claim, and for the user's running turn to end. A cancelled turn ends in five seconds;
a turn whose instance crashed is taken over first."""
POLL: Final = Backoff(first=0.1, longest=1.0)

Observer = Callable[[str, AgentStatus, str | None], None]
"""Called when a deletion begins: user id, status, reason. It closes the user's connections. Must not raise."""


class OpenTurns(Protocol):
    """Reads a user's open turns; `SessionStore` does."""

    async def open_turns(self, user_id: str) -> tuple[Turn | None, tuple[Turn, ...]]: ...


@dataclass(frozen=True, slots=True)
class DeletionServices:
    """What the steps use. `keep_spend`: what the user spent is kept in sums without names."""

    accounts: AccountStore
    turns: OpenTurns
    billing: BillingGateway
    directory: AgentDirectory
    keep_spend: bool = True
    sleep: Sleep = asyncio.sleep


@dataclass(slots=True)
class AccountDeletion:
    """`owner` names this instance in claims. `clock` in seconds. Close with `aclose`."""

    services: DeletionServices
    observer: Observer = lambda user_id, status, reason: None
    owner: str = field(default_factory=lambda: f"deletion-{uuid4()}")
    clock: Callable[[], float] = time.monotonic
    _runs: SingleFlight[str, None] = field(init=False)
    _failures: FailureBackoff[str] = field(init=False)

    def __post_init__(self) -> None:
        self._runs = SingleFlight("deletion", ignored=(PlatformError, FencedError))
        self._failures = FailureBackoff(AFTER_FAILURE, self.clock)

    async def begin(self, user_id: str) -> None:
        """Mark the account as being deleted, which cannot be undone: nothing new begins, connections close, a running
        turn stops. Raises PlatformError(unauthorized) if the user does not exist."""
        await self.services.accounts.begin_deletion(user_id)
        log.info("deletion.begun", user_id=user_id)
        self.observer(user_id, AgentStatus.DELETING, None)

    async def delete(self, user_id: str, *, timeout: float) -> bool:
        """Begin the deletion, and complete it within `timeout` seconds. Returns False if the rest is done in the
        background, by this instance or another. Raises as `begin` does."""
        await self.begin(user_id)
        try:
            async with asyncio.timeout(timeout):
                await self.run(user_id)
        except (PlatformError, FencedError, TimeoutError, StoppedError) as error:
            log.warning("deletion.postponed", user_id=user_id, reason=str(error) or type(error).__name__)
            return False
        return True

    async def run(self, user_id: str) -> None:
        """Complete a deletion that was begun. Nothing happens if the user does not exist any more; concurrent callers
        share one run, which continues when they are cancelled.

        Raises PlatformError, FencedError if the claim was lost, StoppedError after `aclose`."""
        await self._runs.run(user_id, partial(self._run, user_id))

    async def run_periodically(self) -> None:
        """Continue interrupted deletions, at the start and from time to time, until cancelled."""
        await every(
            ROUND_SECONDS,
            self.round,
            name="deletion",
            jitter=JITTER,
            longest=8 * ROUND_SECONDS,
            expected=(PlatformError,),
            sleep=self.services.sleep,
        )

    async def round(self) -> bool:
        """Continue each interrupted deletion once. Returns False if one has failed."""
        found = await self.services.accounts.unfinished_deletions(BATCH)
        self._failures.retain(found)
        failed = False
        for user_id in found:
            if self._failures.is_pausing(user_id):
                continue
            try:
                await self.run(user_id)
            except (PlatformError, FencedError) as error:
                log.warning("deletion.postponed", user_id=user_id, reason=str(error) or type(error).__name__)
                failed = True
                if isinstance(error, PlatformError) and not error.retryable:
                    self._failures.failed(user_id)
        return not failed

    async def aclose(self) -> None:
        """Stop all runs. Any instance can continue them."""
        await self._runs.aclose()

    async def _run(self, user_id: str) -> None:
        accounts = self.services.accounts
        if await accounts.get(user_id) is None:
            return
        claim = await self._claim(user_id)
        if claim.account.agent_status is not AgentStatus.DELETING:
            raise FencedError(user_id)
        try:
            for name, step in STEPS:
                await self._step(name, step, claim)
        finally:
            await accounts.release(claim)
        log.info("deletion.done", user_id=user_id)

    async def _claim(self, user_id: str) -> ProvisioningClaim:
        """The claim, also of an account that is being provisioned just now."""
        waited = 0.0
        for pause in POLL.pauses():
            claim = await self.services.accounts.claim(user_id, self.owner, CLAIM_SECONDS)
            if claim is not None:
                return claim
            if waited >= WAIT_SECONDS:
                break
            await self.services.sleep(pause)
            waited += pause
        raise PlatformError(ErrorCode.BUSY, "The account is in use by another instance.", retry_after=5.0)

    async def _step(self, name: str, step: "Step", claim: ProvisioningClaim) -> None:
        started = time.monotonic()
        outcome = "failed"
        try:
            async with asyncio.timeout(STEP_SECONDS), renewing(self.services.accounts, claim):
                await step(self.services, claim.account)
            outcome = "done"
        except TimeoutError as cause:
            raise PlatformError(ErrorCode.AGENT_UNAVAILABLE, f"The step {name} took too long.") from cause
        finally:
            duration_ms = round((time.monotonic() - started) * 1000)
            log.info("deletion.step", user_id=claim.user_id, step=name, outcome=outcome, duration_ms=duration_ms)


Step = Callable[[DeletionServices, Account], Awaitable[None]]


async def _stop_turns(services: DeletionServices, account: Account) -> None:
    """Wait for the end of the running turn, which was asked to stop: its instance would still call the model."""
    waited = 0.0
    for pause in POLL.pauses():
        running, _ = await services.turns.open_turns(account.user_id)
        if running is None:
            return
        if waited >= WAIT_SECONDS:
            raise PlatformError(ErrorCode.BUSY, "The user's running turn has not stopped yet.", retry_after=5.0)
        await services.sleep(pause)
        waited += pause


async def _delete_customer(services: DeletionServices, account: Account) -> None:
    await services.billing.delete_customer(account.user_id)


async def _delete_agent(services: DeletionServices, account: Account) -> None:
    """An organization whose creation was interrupted before its id was stored is searched for."""
    organization = account.organization_id
    if organization is None and account.intent == "organization":
        organization = await services.directory.find_organization(account.user_id)
    if organization is not None:
        await services.directory.delete_everything(organization, account.member_id)


async def _delete_account(services: DeletionServices, account: Account) -> None:
    await services.accounts.delete(account.user_id, keep_spend=services.keep_spend)


STEPS: Final[tuple[tuple[str, Step], ...]] = (
    ("turns", _stop_turns),
    ("customer", _delete_customer),
    ("agent", _delete_agent),
    ("account", _delete_account),
)
