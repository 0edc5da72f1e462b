"""AdminStore and UserCreation in memory, by the same rules as the SQL functions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import TypeVar

from pydantic import SecretStr

from server.ports import (
    Account,
    AccountDetails,
    AccountFilter,
    AccountSpending,
    Actor,
    AdminAction,
    DayOfAll,
    ModelUsage,
    Outcome,
    TurnFailure,
    UsageOfAll,
    UsageSum,
)
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, Json, TurnStatus
from tests.fakes.charges import standing
from tests.fakes.database import MemoryDatabase, ProfileRow

T = TypeVar("T")


class FakeAdminStore:
    """Implements `server.ports.AdminStore` on a MemoryDatabase."""

    def __init__(self, database: MemoryDatabase) -> None:
        self.database = database

    async def _apply(self, operation: str, change: Callable[[], T]) -> T:
        await self.database.reached(operation)
        result = change()
        await self.database.answered(operation)
        return result

    async def search(self, wanted: AccountFilter, after: str | None, limit: int) -> list[AccountSpending]:
        return await self._apply("search", lambda: self._search(wanted, after, limit))

    def _search(self, wanted: AccountFilter, after: str | None, limit: int) -> list[AccountSpending]:
        accounts = [row.account for row in self.database.profiles.values()]
        accounts.sort(key=lambda one: (one.created_at, one.user_id), reverse=True)
        if after is not None:
            ids = [one.user_id for one in accounts]
            accounts = accounts[ids.index(after) + 1 :] if after in ids else []
        text = (wanted.text or "").lower()
        return [
            self._spending(one)
            for one in accounts
            if (not text or one.user_id == text or text in one.email.lower())
            and wanted.status in (None, one.agent_status)
            and (one.is_admin or not wanted.admins_only)
        ][:limit]

    def _spending(self, account: Account) -> AccountSpending:
        days = [day for (owner, _), day in self.database.days.items() if owner == account.user_id]
        total = UsageSum(
            sum(day.messages for day in days),
            sum(day.tokens for day in days),
            sum((day.cost for day in days), Decimal(0)),
        )
        found = self.database.standings.get(account.user_id) or standing(self.database, account.user_id)
        return AccountSpending(account, found, total)

    async def details(self, user_id: str, errors: int) -> AccountDetails | None:
        return await self._apply("details", lambda: self._details(user_id, errors))

    def _details(self, user_id: str, errors: int) -> AccountDetails | None:
        row, turns = self.database.profiles.get(user_id), [row.turn for row in self.database.of_user(user_id)]
        if row is None:
            return None
        spending = self._spending(row.account)
        failed = [
            TurnFailure(turn.id, turn.finished_at, turn.error.code, turn.error.message)
            for turn in turns
            if turn.error is not None and turn.finished_at is not None
        ]
        return AccountDetails(
            account=row.account,
            standing=spending.standing,
            total=spending.total,
            open_turns=sum(not turn.status.ended for turn in turns),
            last_message_at=turns[-1].created_at if turns else None,
            errors=tuple(sorted(failed, key=lambda one: one.at, reverse=True)[:errors]),
        )

    async def block(self, user_id: str, reason: str | None, actor: Actor) -> Account:
        return await self._apply("block", lambda: self._block(user_id, reason, actor))

    def _block(self, user_id: str, reason: str | None, actor: Actor) -> Account:
        row = self._profile(user_id)
        self.database.refuse_last_admin(user_id)
        self._save(row, replace(row.account, agent_status=AgentStatus.BLOCKED, status_reason=reason))
        now = self.database.clock()
        for turn_row in self.database.of_user(user_id):
            if turn_row.turn.status is TurnStatus.QUEUED:
                cancelled = replace(turn_row.turn, status=TurnStatus.CANCELLED, finished_at=now)
                turn_row.turn = replace(cancelled, cancel_requested_at=now)
            elif turn_row.turn.status is TurnStatus.RUNNING:
                asked_at = turn_row.turn.cancel_requested_at or now
                turn_row.turn = replace(turn_row.turn, cancel_requested_at=asked_at)
        self._record(actor, "block", user_id, {"reason": reason})
        return row.account

    async def unblock(self, user_id: str, actor: Actor) -> Account:
        return await self._apply("unblock", lambda: self._unblock(user_id, actor))

    def _unblock(self, user_id: str, actor: Actor) -> Account:
        row = self._profile(user_id)
        if row.account.agent_status is AgentStatus.BLOCKED:
            ready = row.account.conversation_id is not None and row.account.config_hash is not None
            status = AgentStatus.ACTIVE if ready else AgentStatus.PROVISIONING
            self._save(row, replace(row.account, agent_status=status, status_reason=None))
        self._record(actor, "unblock", user_id, {})
        return row.account

    async def set_admin(self, user_id: str, is_admin: bool, actor: Actor) -> None:
        await self._apply("set_admin", lambda: self._set_admin(user_id, is_admin, actor))

    def _set_admin(self, user_id: str, is_admin: bool, actor: Actor) -> None:
        if user_id not in self.database.users:
            raise PlatformError(ErrorCode.NOT_FOUND)
        if not is_admin:
            self.database.refuse_last_admin(user_id)
        (self.database.admins.add if is_admin else self.database.admins.discard)(user_id)
        row = self.database.profile(user_id)
        row.account = replace(row.account, is_admin=is_admin)
        self._record(actor, "make_admin" if is_admin else "remove_admin", user_id, {})

    async def label_plan(self, user_id: str, plan: str | None) -> Account:
        return await self._apply("label_plan", lambda: self._label_plan(user_id, plan))

    def _label_plan(self, user_id: str, plan: str | None) -> Account:
        row = self._profile(user_id, closed_too=True)
        self._save(row, replace(row.account, plan=plan))
        return row.account

    async def usage(self, first: date, last: date) -> UsageOfAll:
        return await self._apply("usage", lambda: self._usage(first, last))

    def _usage(self, first: date, last: date) -> UsageOfAll:
        days: dict[date, DayOfAll] = {}
        for (_, day), row in sorted(self.database.days.items()):
            if first <= day <= last:
                of_all = days.get(day, DayOfAll(day, 0, 0, 0, Decimal(0)))
                days[day] = DayOfAll(
                    day,
                    of_all.users + 1,
                    of_all.messages + row.messages,
                    of_all.tokens + row.tokens,
                    of_all.cost + row.cost,
                )
        for entry in self.database.deleted_usage:
            if first <= (day := entry.started_at.date()) <= last:
                of_all = days.get(day, DayOfAll(day, 0, 0, 0, Decimal(0)))
                tokens = of_all.tokens + entry.usage.total_tokens
                days[day] = replace(of_all, tokens=tokens, cost=of_all.cost + (entry.cost or 0))
        return UsageOfAll(tuple(days[day] for day in sorted(days)), self._models(first, last))

    def _models(self, first: date, last: date) -> tuple[ModelUsage, ...]:
        sums: dict[tuple[date, str], ModelUsage] = {}
        for entry in (*self.database.ledger.values(), *self.database.deleted_usage):
            day = entry.started_at.date()
            if not entry.counted or not first <= day <= last:
                continue
            cost, used = entry.cost or Decimal(0), entry.usage
            before = sums.get(
                (day, entry.model), ModelUsage(day, entry.model, 0, 0, 0, 0, 0, 0, Decimal(0), Decimal(0))
            )
            sums[day, entry.model] = ModelUsage(
                day,
                entry.model,
                before.model_calls + used.model_calls,
                before.prompt_tokens + used.prompt_tokens,
                before.completion_tokens + used.completion_tokens,
                before.cached_tokens + used.cached_tokens,
                before.reasoning_tokens + used.reasoning_tokens,
                before.tokens + used.total_tokens,
                before.cost + cost,
                before.background_cost + (cost if entry.turn_id is None else 0),
            )
        return tuple(sums[key] for key in sorted(sums))

    async def begin(self, actor: Actor, action: str, user_id: str | None, details: Json) -> int:
        return await self._apply("begin", lambda: self._begin(actor, action, user_id, details))

    def _begin(self, actor: Actor, action: str, user_id: str | None, details: Json) -> int:
        number, now = len(self.database.actions) + 1, self.database.clock()
        self.database.actions.append(
            AdminAction(
                number, now, actor.user_id, None, actor.source, action, user_id, None, details, None, None, None
            )
        )
        return number

    async def end(
        self, action_id: int, outcome: Outcome, *, user_id: str | None = None, reason: str | None = None
    ) -> None:
        await self._apply("end", lambda: self._end(action_id, outcome, user_id, reason))

    def _end(self, action_id: int, outcome: Outcome, user_id: str | None, reason: str | None) -> None:
        action = self.database.actions[action_id - 1]
        if action.outcome is None:
            self.database.actions[action_id - 1] = replace(
                action,
                outcome=outcome,
                reason=reason,
                user_id=action.user_id or user_id,
                ended_at=self.database.clock(),
            )

    async def actions(self, user_id: str | None, before: int | None, limit: int) -> list[AdminAction]:
        return await self._apply("actions", lambda: self._actions(user_id, before, limit))

    def _actions(self, user_id: str | None, before: int | None, limit: int) -> list[AdminAction]:
        return [
            replace(action, actor_email=self._email(action.actor_id), user_email=self._email(action.user_id))
            for action in reversed(self.database.actions)
            if (user_id is None or user_id in (action.user_id, action.actor_id))
            and (before is None or action.id < before)
        ][:limit]

    def _email(self, user_id: str | None) -> str | None:
        row = None if user_id is None else self.database.profiles.get(user_id)
        return None if row is None else row.account.email

    def _record(self, actor: Actor, action: str, user_id: str, details: Json) -> None:
        self._end(self._begin(actor, action, user_id, details), "done", None, None)

    def _profile(self, user_id: str, *, closed_too: bool = False) -> ProfileRow:
        if user_id not in self.database.users:
            raise PlatformError(ErrorCode.NOT_FOUND)
        row = self.database.profile(user_id)
        if row.account.agent_status is AgentStatus.DELETING and not closed_too:
            raise PlatformError(ErrorCode.NOT_FOUND)
        return row

    def _save(self, row: ProfileRow, account: Account) -> None:
        row.account = replace(account, updated_at=self.database.clock())


@dataclass(slots=True)
class FakeUserCreation:
    """Implements `server.ports.UserCreation` on the database's users."""

    database: MemoryDatabase

    async def create_user(self, email: str, password: SecretStr, name: str | None) -> str:
        if len(password.get_secret_value()) < 8:
            raise PlatformError(ErrorCode.WEAK_PASSWORD)
        if email in self.database.users.values():
            raise PlatformError(ErrorCode.INVALID_REQUEST, "This e-mail address is registered already.")
        return self.database.sign_up(email, {} if name is None else {"name": name})
