"""The use cases of operators. The endpoints `admin/…` and the commands `chat users …` are thin shells around it.

Each change is an action in the record: written in the same transaction where it changes our rows alone, otherwise
before it, with its outcome afterwards. What cannot be recorded is not done.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

import structlog
from pydantic import SecretStr

from server.accounts.deletion import AccountDeletion
from server.accounts.export import AccountExport
from server.ports import (
    Account,
    AccountDetails,
    AccountFilter,
    AccountSpending,
    AccountStore,
    Actor,
    AdminAction,
    AdminStore,
    AgentHandle,
    BillingGateway,
    Budget,
    Ledger,
    Plan,
    Plans,
    UsageOfAll,
    UserCreation,
)
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, Json, wire_money
from server.provisioning import Provisioner

log = structlog.get_logger(__name__)

SHOWN_ERRORS: Final = 10
Publish = Callable[[str, AgentStatus, str | None], None]
"""Publishes the status of a user's account on every instance, which closes the connections of a blocked one."""


@dataclass(slots=True)
class _Recorded:
    """An action under way. `user_id`: the user it has created."""

    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class PlanChange:
    """A user's new plan. `budget` None: the agent is not made yet, and its customer will get the plan."""

    account: Account
    plan: Plan
    budget: Budget | None


@dataclass(frozen=True, slots=True)
class AdminContext:
    """What the use cases need."""

    store: AdminStore
    accounts: AccountStore
    billing: BillingGateway
    ledger: Ledger
    provisioner: Provisioner
    plans: Plans
    users: UserCreation
    deletion: AccountDeletion
    export: AccountExport
    agent_model: str
    publish: Publish = lambda user_id, status, reason: None


class AdminService:
    """Raises PlatformError(not_found) for unknown users, and the codes of unavailable services."""

    def __init__(self, context: AdminContext) -> None:
        self.plans = context.plans
        self._store = context.store
        self._accounts = context.accounts
        self._billing = context.billing
        self._ledger = context.ledger
        self._provisioner = context.provisioner
        self._users = context.users
        self._deletion = context.deletion
        self._export = context.export
        self._agent_model = context.agent_model
        self._publish = context.publish

    # -- reading -------------------------------------------------------------------------------------------------

    async def search(self, wanted: AccountFilter, after: str | None, limit: int) -> tuple[list[AccountSpending], bool]:
        """A page of accounts with what they have spent, the newest first, and whether there are more."""
        found = await self._store.search(wanted, after, limit + 1)
        return found[:limit], len(found) > limit

    async def details(self, user_id: str) -> AccountDetails:
        found = await self._store.details(user_id, SHOWN_ERRORS)
        if found is None:
            raise _unknown()
        return found

    async def plan(self, account: Account) -> Plan | None:
        """The plan that the model gateway enforces; None if the user is no customer yet, or it cannot be asked now."""
        if not account.customer_ready:
            return None
        try:
            return await self._billing.plan(account.user_id)
        except PlatformError as error:
            log.warning("admin.plan_unknown", user_id=account.user_id, code=error.code)
            return None

    async def usage(self, first: date, last: date) -> UsageOfAll:
        return await self._store.usage(first, last)

    async def actions(self, user_id: str | None, before: int | None, limit: int) -> tuple[list[AdminAction], bool]:
        """A page of the record, the newest first, and whether there are more."""
        found = await self._store.actions(user_id, before, limit + 1)
        return found[:limit], len(found) > limit

    # -- plans ---------------------------------------------------------------------------------------------------

    async def set_plan(self, actor: Actor, user_id: str, name: str) -> PlanChange:
        """Give the user a named plan, from the next model call on. Raises PlatformError(invalid_request)."""
        if name not in self.plans.named:
            known = ", ".join(sorted(self.plans.named))
            raise PlatformError(ErrorCode.INVALID_REQUEST, f"There is no plan {name}. The plans are: {known}.")
        async with self._recorded(actor, "set_plan", user_id, {"plan": name}):
            account = await self._store.label_plan(user_id, name)
            plan = self.plans.named[name]
            budget = await self._apply(user_id, plan) if account.customer_ready else None
            return PlanChange(account, plan, budget)

    async def change_plan(self, actor: Actor, user_id: str, change: Mapping[str, Any]) -> PlanChange:
        """Change fields of the user's plan, from the next model call on; it is no named plan any more.

        Raises PlatformError(invalid_request) if its models lack the one that every agent uses."""
        if change.get("models") and self._agent_model not in change["models"]:
            message = f"The models must contain {self._agent_model}, which every agent uses."
            raise PlatformError(ErrorCode.INVALID_REQUEST, message)
        async with self._recorded(actor, "change_plan", user_id, _wire_change(change)):
            account = await self._accounts.get(user_id)
            if account is None:
                raise _unknown()
            if not account.customer_ready:
                raise PlatformError(ErrorCode.NOT_FOUND, "This account is not complete yet. Repair it first.")
            plan = replace(await self._billing.plan(user_id), **change)
            budget = await self._apply(user_id, plan)
            return PlanChange(await self._store.label_plan(user_id, None), plan, budget)

    async def _apply(self, user_id: str, plan: Plan) -> Budget:
        budget = await self._billing.set_plan(user_id, plan)
        await self._ledger.store_budget(user_id, budget)  # so that it applies to the next message
        return budget

    # -- accounts ------------------------------------------------------------------------------------------------

    async def block(self, actor: Actor, user_id: str, reason: str | None) -> Account:
        """Close the account: its connections, its turns, its requests. Raises PlatformError(last_admin)."""
        account = await self._store.block(user_id, reason, actor)
        self._provisioner.evict(user_id)
        self._publish(user_id, account.agent_status, account.status_reason)
        log.info("admin.blocked", user_id=user_id, actor=actor.user_id, source=actor.source)
        return account

    async def unblock(self, actor: Actor, user_id: str) -> Account:
        account = await self._store.unblock(user_id, actor)
        log.info("admin.unblocked", user_id=user_id, actor=actor.user_id, source=actor.source)
        return account

    async def set_admin(self, actor: Actor, user_id: str, is_admin: bool) -> None:
        """Make the user an admin, or no longer one. Raises PlatformError(last_admin)."""
        await self._store.set_admin(user_id, is_admin, actor)
        log.info("admin.set", user_id=user_id, is_admin=is_admin, actor=actor.user_id, source=actor.source)

    async def rotate_key(self, actor: Actor, user_id: str, *, at_once: bool) -> None:
        """Give the user a new key at the model gateway and the agent service."""
        async with self._recorded(actor, "rotate_key", user_id, {"at_once": at_once}):
            await self._provisioner.rotate_key(user_id, "at once" if at_once else "gently")

    async def repair(self, actor: Actor, user_id: str, *, thorough: bool = True) -> AgentHandle:
        """Repeat the provisioning; with `thorough` every step of it."""
        async with self._recorded(actor, "repair", user_id, {}):
            return await self._provisioner.attempt(user_id, thorough=thorough, rebuild=True)

    async def create_user(
        self, actor: Actor, email: str, password: SecretStr | None, name: str | None, plan: str | None
    ) -> Account:
        """Create a user with a confirmed e-mail address, whether or not registration is open; without a password they
        set one by recovery. The agent is provisioned in the background. Raises PlatformError(invalid_request)."""
        if plan is not None and plan not in self.plans.named:
            raise PlatformError(ErrorCode.INVALID_REQUEST, f"There is no plan {plan}.")
        async with self._recorded(actor, "create_user", None, {"plan": plan}) as action:
            chosen = password or SecretStr(secrets.token_urlsafe(32))
            action.user_id = user_id = await self._users.create_user(email, chosen, name)
            account = await self._accounts.ensure(user_id, email, name)
            if plan is not None:
                account = await self._store.label_plan(user_id, plan)
        await self._provisioner.ensure_account(user_id, email)
        return account

    async def delete(self, actor: Actor, user_id: str, *, timeout: float) -> bool:
        """Delete the user with everything that belongs to them. Returns False if that is not complete after `timeout`
        seconds: the account is closed, and the server goes on. Raises PlatformError(last_admin)."""
        async with self._recorded(actor, "delete", user_id, {}):
            if await self._accounts.get(user_id) is None:
                raise _unknown()
            is_complete = await self._deletion.delete(user_id, timeout=timeout)
        self._provisioner.evict(user_id)
        log.info("admin.deleted", user_id=user_id, is_complete=is_complete, actor=actor.user_id, source=actor.source)
        return is_complete

    async def export(self, actor: Actor, user_id: str, exported_at: str) -> AsyncIterator[bytes]:
        """Everything that is stored about the user, as `AccountExport.document` has it."""
        async with self._recorded(actor, "export", user_id, {}):
            async for piece in self._export.document(user_id, exported_at):
                yield piece

    @asynccontextmanager
    async def _recorded(
        self, actor: Actor, action: str, user_id: str | None, details: Json
    ) -> AsyncIterator[_Recorded]:
        """Record the action before the block, and its outcome after it."""
        action_id = await self._store.begin(actor, action, user_id, details)
        recorded = _Recorded()
        try:
            yield recorded
        except Exception as error:
            reason = f"{error.code}: {error.message}" if isinstance(error, PlatformError) else type(error).__name__
            await self._end(action_id, recorded, reason)
            raise
        await self._end(action_id, recorded, None)

    async def _end(self, action_id: int, recorded: _Recorded, reason: str | None) -> None:
        """Record the outcome. If the database is unavailable now, the action stays in the record without one."""
        try:
            outcome: Any = "done" if reason is None else "failed"
            await self._store.end(action_id, outcome, user_id=recorded.user_id, reason=reason)
        except PlatformError as error:
            log.warning("admin.outcome_not_recorded", action_id=action_id, failed=reason, code=error.code)


def _unknown() -> PlatformError:
    return PlatformError(ErrorCode.NOT_FOUND, "This account does not exist.")


def _wire_change(change: Mapping[str, Any]) -> Json:
    """The changed fields of a plan as JSON."""
    shown = dict(change)
    if "budget" in shown:
        shown["budget"] = wire_money(shown["budget"])
    if "models" in shown:
        shown["models"] = list(shown["models"])
    return shown
