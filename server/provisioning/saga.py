"""Runs the steps one user still needs, under that user's claim; stores the intent before each step, and the result
after it, together with the next intent.

The next run continues from the stored state. Touches the account store and, through the steps, LiteLLM and Letta."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

import structlog

from server.ports import Account, AccountChange, AccountStore, FencedError, ProvisioningClaim
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.provisioning.claims import renewing
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
    is_being_replaced,
    key_of,
    new_key,
)

log = structlog.get_logger(__name__)

STEP_SECONDS: Final = 45.0

Rotation = Literal["gently", "at once"]
"""Whether a replaced key stays valid for the turns that use it, or is blocked."""

Scope = Literal["missing", "agent", "everything"]
"""Which steps run: those whose result is not stored, in addition all those at the agent service, or every step."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """`rotation`: begin with a new key. `rebuild`: an operator wants everything created again where the agent service
    has lost the user's organization."""

    scope: Scope = "missing"
    rotation: Rotation | None = None
    rebuild: bool = False


DEFAULT_OPTIONS: Final = RunOptions()

Observer = Callable[[str, AgentStatus, str | None], None]
"""Called after each change of a user's status or its reason: user id, status, reason. Must not raise."""


class ProvisioningError(PlatformError):
    """A step failed. `permanent`: a retry fails again until an operator has removed the cause."""

    def __init__(self, reason: str, *, permanent: bool, retry_after: float | None = None) -> None:
        super().__init__(ErrorCode.AGENT_UNAVAILABLE, reason, retry_after=retry_after)
        self.permanent = permanent


class Saga:
    """The loop over the steps. Holds nothing between two runs."""

    def __init__(self, store: AccountStore, context: ProvisioningContext, observer: Observer) -> None:
        self._store = store
        self._context = context
        self._observer = observer

    async def run(self, claim: ProvisioningClaim, options: RunOptions = DEFAULT_OPTIONS) -> Account:
        """Run every step that is needed or asked for; return the account.

        A new key is stored together with the mark `UNDER_REPAIR`, so that the next run after a crash registers the key
        everywhere. Only the blocking of `at once` must be asked for again.

        Raises ProvisioningError, FencedError when the claim was lost, PlatformError(supabase_unavailable)."""
        account, interrupted = claim.account, claim.account.intent
        if options.rotation is not None:
            change = replace(new_key(self._context, account.user_id), config_hash=UNDER_REPAIR)
            account = await self._record(claim, account, change)
            log.info("key.rotated", user_id=account.user_id)
        options = _continued(options, account.config_hash)
        repeated = {"everything": STEPS, "agent": AGENT_STEPS, "missing": ()}[options.scope]
        steps = [step for step in STEPS if step in repeated or step.needed(account, self._context.template)]
        if steps:
            account = await self._record(claim, account, replace(_restart(account, options), intent=steps[0].name))
        for step, following in zip(steps, [*(one.name for one in steps[1:]), ""], strict=False):
            job = Job(account, step in repeated or step.name == interrupted, options.rebuild)
            account = await self._run_step(step, claim, job, following)
        if options.rotation == "at once":
            await self._block_older_keys(claim, account)
        return account

    async def _block_older_keys(self, claim: ProvisioningClaim, account: Account) -> None:
        """Block the older keys, as the last step: only turns that are running still use them."""
        try:
            async with asyncio.timeout(STEP_SECONDS), renewing(self._store, claim):
                key = key_of(account, self._context.keys)
                await self._context.billing.block_other_keys(account.user_id, key)
        except TimeoutError as cause:
            raise ProvisioningError("It took too long to block the older keys.", permanent=False) from cause

    async def _run_step(self, step: Step, claim: ProvisioningClaim, job: Job, following: str) -> Account:
        """Run the step and store its result, together with the intent of the `following` one."""
        account = job.account
        started = time.monotonic()
        outcome = "done"
        try:
            async with asyncio.timeout(STEP_SECONDS), renewing(self._store, claim):
                change = await step.run(self._context, job)
            return await self._record(claim, account, replace(_recovered(account, change), intent=following))
        except FencedError:
            outcome = "fenced"
            raise
        except Exception as cause:
            failure = _classify(step, cause)
            outcome = "failed" if failure.permanent else "postponed"
            await self._store_failure(claim, account, failure)
            raise failure from cause
        except BaseException:
            outcome = "cut_off"
            raise
        finally:
            duration_ms = round((time.monotonic() - started) * 1000)
            log.info("saga.step", user_id=account.user_id, step=step.name, outcome=outcome, duration_ms=duration_ms)

    async def _store_failure(self, claim: ProvisioningClaim, account: Account, failure: ProvisioningError) -> None:
        """Store the reason. The intent stays, as it is unknown whether the step took effect. An active agent stays
        active unless the failure is permanent. The reason of a replaced agent or conversation stays for the user."""
        if failure.permanent:
            change = AccountChange(status_reason=failure.message, agent_status=AgentStatus.FAILED)
        elif is_being_replaced(account):
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


def _continued(options: RunOptions, mark: str | None) -> RunOptions:
    """The options together with those of an interrupted run, which its mark stands for."""
    if mark in (UNDER_REPAIR, UNDER_REBUILD):
        return replace(options, scope="everything", rebuild=options.rebuild or mark == UNDER_REBUILD)
    return replace(options, scope="agent") if mark == IN_DOUBT and options.scope == "missing" else options


def _mark(options: RunOptions) -> str | None:
    """The mark that is stored as the config_hash until the run has completed."""
    if options.scope == "everything":
        return UNDER_REBUILD if options.rebuild else UNDER_REPAIR
    return IN_DOUBT if options.scope == "agent" else None


def _restart(account: Account, options: RunOptions) -> AccountChange:
    """The change that begins a run: an account without an agent is `provisioning`, and the options leave their mark."""
    is_new = account.handle is None and account.agent_status is not AgentStatus.FAILED
    return AccountChange(agent_status=AgentStatus.PROVISIONING if is_new else None, config_hash=_mark(options))


def _recovered(account: Account, change: AccountChange) -> AccountChange:
    """The change, which also ends the status `failed` once a step has succeeded. Until then the account stays failed:
    otherwise each retry of a step that fails again would publish two changes of the status."""
    if account.agent_status is not AgentStatus.FAILED or change.agent_status is not None:
        return change
    return replace(change, agent_status=AgentStatus.PROVISIONING)


def _classify(step: Step, cause: Exception) -> ProvisioningError:
    """The failure as the user sees it. An unexpected exception is permanent: retrying it would hide a defect."""
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
        log.error("saga.step_crashed", step=step.name, exc_info=cause)
    elif cause.message != cause.rule.sentence:
        detail = cause.message
    return ProvisioningError(f"Something went wrong while {step.purpose}. {detail}", permanent=True, retry_after=60.0)
