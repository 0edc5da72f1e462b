"""Runs the steps one user still needs, under that user's claim: intent stored before each step, result after it.

Whoever runs next continues from what is stored. Touches the account store and, through the steps, LiteLLM and Letta."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

import structlog

from server.aio import TaskSet
from server.ports import Account, AccountChange, AccountStore, FencedError, ProvisioningClaim
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.provisioning.steps import (
    AGENT_STEPS,
    IN_DOUBT,
    STEPS,
    UNDER_REBUILD,
    UNDER_REPAIR,
    Job,
    OrganizationGoneError,
    ProvisioningContext,
    Step,
    fresh_key,
    key_of,
    lost_just_now,
)

log = structlog.get_logger(__name__)

CLAIM_SECONDS: Final = 15.0
"""How long a claim outlives its holder. Short, since a new user's first message waits for it after a crash."""
PULSE_SECONDS: Final = 4.0
"""How often a claim is renewed while a step takes its time."""
SAFE_SECONDS: Final = 10.0
"""A step whose claim could not be renewed for so long is stopped: no two runners ever work on one user."""
STEP_SECONDS: Final = 45.0

Rotation = Literal["gently", "at once"]
"""What becomes of a key that is replaced: it goes on for the turns that carry it, or it is blocked."""

Scope = Literal["missing", "agent", "everything"]
"""Which steps are taken: those whose result is not stored, also all at the agent service, or each one."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is asked for. `rotation` begins with a new key. `rebuild`: an operator wants all of it made anew where
    the agent service has lost the user's organization."""

    scope: Scope = "missing"
    rotation: Rotation | None = None
    rebuild: bool = False


NOTHING_SPECIAL: Final = Order()

Observer = Callable[[str, AgentStatus, str | None], None]
"""Told of each change of a user's status or its reason: user id, status, reason. Must not raise."""


class ProvisioningError(PlatformError):
    """A step failed. `permanent`: trying again will not help until somebody mends the cause."""

    def __init__(self, reason: str, *, permanent: bool, retry_after: float | None = None) -> None:
        super().__init__(ErrorCode.AGENT_UNAVAILABLE, reason, retry_after=retry_after)
        self.permanent = permanent


class Saga:
    """The loop over the steps. Holds nothing between two runs."""

    def __init__(self, store: AccountStore, context: ProvisioningContext, observer: Observer) -> None:
        self._store = store
        self._context = context
        self._observer = observer

    async def run(self, claim: ProvisioningClaim, order: Order = NOTHING_SPECIAL) -> Account:
        """Take every step that is needed or ordered; return the account.

        Storing a new key marks the account as under repair in the same moment, so that whoever continues takes the key
        everywhere; only the blocking `at once` has to be asked for again.

        Raises ProvisioningError, FencedError when the claim was lost, PlatformError(supabase_unavailable)."""
        account, interrupted = claim.account, claim.account.intent
        if order.rotation is not None:
            change = replace(fresh_key(self._context, account.user_id), config_hash=UNDER_REPAIR)
            account = await self._record(claim, account, change)
            log.info("key.rotated", user_id=account.user_id)
        order = _continued(order, account.config_hash)
        for step in STEPS:
            again = order.scope == "everything" or (order.scope == "agent" and step in AGENT_STEPS)
            if again or step.needed(account, self._context.template):
                intent = replace(_restart(account, order), intent=step.name)
                account = await self._record(claim, account, intent)
                job = Job(account, again or step.name == interrupted, order.rebuild)
                account = await self._take(step, claim, job)
        if order.rotation == "at once":
            await self._block_older_keys(claim, account)
        return account

    async def _block_older_keys(self, claim: ProvisioningClaim, account: Account) -> None:
        """Last, when nothing carries them any more but turns that run now."""
        try:
            async with asyncio.timeout(STEP_SECONDS), self._kept(claim):
                key = key_of(account, self._context.keys)
                await self._context.billing.block_other_keys(account.user_id, key)
        except TimeoutError as cause:
            raise ProvisioningError("It took too long to block the older keys.", permanent=False) from cause

    async def _take(self, step: Step, claim: ProvisioningClaim, job: Job) -> Account:
        account = job.account
        started = time.monotonic()
        outcome = "done"
        try:
            async with asyncio.timeout(STEP_SECONDS), self._kept(claim):
                change = await step.run(self._context, job)
            return await self._record(claim, account, replace(_recovered(account, change), intent=""))
        except FencedError:
            outcome = "fenced"
            raise
        except Exception as cause:
            failure = _judge(step, cause)
            outcome = "failed" if failure.permanent else "postponed"
            await self._give_up(claim, account, failure)
            raise failure from cause
        except BaseException:
            outcome = "cut_off"
            raise
        finally:
            duration_ms = round((time.monotonic() - started) * 1000)
            log.info("saga.step", user_id=account.user_id, step=step.name, outcome=outcome, duration_ms=duration_ms)

    @asynccontextmanager
    async def _kept(self, claim: ProvisioningClaim) -> AsyncIterator[None]:
        """Renew the claim beside a step. Raises TimeoutError inside when that was not possible in time."""
        async with asyncio.timeout(SAFE_SECONDS) as safe, TaskSet("provisioning claim") as tasks:
            tasks.create(self._renew(claim, safe), name=claim.user_id)
            yield

    async def _renew(self, claim: ProvisioningClaim, safe: asyncio.Timeout) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            asked_at = now()
            try:
                await self._store.record(claim, AccountChange())
            except FencedError:
                safe.reschedule(now())
                return
            except PlatformError as error:
                log.warning("saga.claim_not_renewed", user_id=claim.user_id, code=error.code)
            else:
                safe.reschedule(asked_at + SAFE_SECONDS)

    async def _give_up(self, claim: ProvisioningClaim, account: Account, failure: ProvisioningError) -> None:
        """Store why. The intent stays, as it is not known whether the step took effect; so does an active agent, unless
        the failure is permanent, and what the user has just lost: that is told when the agent is ready."""
        if failure.permanent:
            change = AccountChange(status_reason=failure.message, agent_status=AgentStatus.FAILED)
        elif lost_just_now(account):
            return
        else:
            change = AccountChange(status_reason=failure.message)
        try:
            await self._record(claim, account, change)
        except PlatformError as error:
            log.warning("saga.reason_not_stored", user_id=account.user_id, code=error.code)

    async def _record(self, claim: ProvisioningClaim, before: Account, change: AccountChange) -> Account:
        account = await self._store.record(claim, change)
        if (account.agent_status, account.status_reason) != (before.agent_status, before.status_reason):
            self._observer(account.user_id, account.agent_status, account.status_reason)
        return account


def _continued(order: Order, mark: str | None) -> Order:
    """What is to be done: what was ordered, and what a run that was cut off had been ordered, by the mark it left."""
    if mark in (UNDER_REPAIR, UNDER_REBUILD):
        return replace(order, scope="everything", rebuild=order.rebuild or mark == UNDER_REBUILD)
    return replace(order, scope="agent") if mark == IN_DOUBT and order.scope == "missing" else order


def _mark(order: Order) -> str | None:
    """What stands for the config_hash until the order is carried out."""
    if order.scope == "everything":
        return UNDER_REBUILD if order.rebuild else UNDER_REPAIR
    return IN_DOUBT if order.scope == "agent" else None


def _restart(account: Account, order: Order) -> AccountChange:
    """An account without an agent is being provisioned; one under repair is not complete."""
    anew = account.handle is None and account.agent_status is not AgentStatus.FAILED
    return AccountChange(agent_status=AgentStatus.PROVISIONING if anew else None, config_hash=_mark(order))


def _recovered(account: Account, change: AccountChange) -> AccountChange:
    """A failed account is being provisioned again once a step has succeeded. Until then it stays failed, since every
    retry of a step that cannot succeed would otherwise publish two changes of the status."""
    if account.agent_status is not AgentStatus.FAILED or change.agent_status is not None:
        return change
    return replace(change, agent_status=AgentStatus.PROVISIONING)


def _judge(step: Step, cause: Exception) -> ProvisioningError:
    """What a failure means for the user. Whatever nobody foresaw is permanent: repeating it blindly would hide it."""
    if isinstance(cause, OrganizationGoneError):
        return ProvisioningError(cause.message, permanent=True, retry_after=60.0)
    if isinstance(cause, PlatformError) and cause.retryable:
        reason = f"{cause.message} Setting up your agent goes on by itself."
        return ProvisioningError(reason, permanent=False, retry_after=cause.retry_after)
    if isinstance(cause, TimeoutError):
        reason = f"It took too long {step.purpose}. Setting up your agent goes on by itself."
        return ProvisioningError(reason, permanent=False)
    detail = "This needs an operator."
    if not isinstance(cause, PlatformError):
        log.error("saga.step_broke", step=step.name, exc_info=cause)
    elif cause.message != cause.rule.sentence:
        detail = cause.message
    return ProvisioningError(f"Something went wrong while {step.purpose}. {detail}", permanent=True, retry_after=60.0)
