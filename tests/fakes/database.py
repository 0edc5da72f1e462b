"""The rows and the clock of the in-memory stores, and hooks by which tests make the database fail or block."""

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Literal

from server.ports import (
    Account,
    AdminAction,
    EntryStatus,
    Forgotten,
    LogMark,
    ModelUsage,
    SignInDevice,
    Standing,
    StoredApiKey,
)
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, Json, Message, MessageStatus, Turn, TurnStatus, Usage

LEASE = timedelta(seconds=12)
OPEN = (TurnStatus.QUEUED, TurnStatus.RUNNING)
Hook = Callable[[str], Awaitable[None]]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class TurnRow:
    """A stored turn with the fields that the port's Turn does not have."""

    turn: Turn
    content_hash: str
    carried_by: str | None = None
    past_runs: set[str] = field(default_factory=set)
    came_while_stopping: str | None = None
    steps: tuple[Json, ...] = ()
    """Of the reply."""
    is_deleted: bool = False
    """Its history was deleted: it has figures, and to its user it does not exist."""

    @property
    def open(self) -> bool:
        return self.turn.status in OPEN


@dataclass(slots=True)
class ProfileRow:
    """A profile with its provisioning claim."""

    account: Account
    key_hash: str | None = None
    claimed_by: str | None = None
    fence: int = 0
    claimed_until: datetime | None = None


@dataclass(slots=True)
class SessionRow:
    owner: str | None
    fence: int
    heartbeat_at: datetime
    released_at: tuple[int, LogMark] | None = None
    """The fence of the owner that released it, and where the log stopped."""
    paced_until: datetime | None = None


@dataclass(slots=True)
class AttemptRow:
    """An attempt that was started, as billing sees it."""

    user_id: str
    started_at: datetime
    sent_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: TurnStatus | None = None
    usage: Usage | None = None
    settled_at: datetime | None = None
    flag: str | None = None
    stopped_at: datetime | None = None


@dataclass(slots=True)
class LedgerEntry:
    """A row of the ledger. `cost` in US dollars."""

    user_id: str
    turn_id: str | None
    attempt: int | None
    status: EntryStatus
    outcome: Literal["success", "failure"]
    model: str
    usage: Usage
    cost: Decimal | None
    started_at: datetime
    flag: str | None = None

    @property
    def counted(self) -> bool:
        return self.status != "written_off" and (self.outcome == "success" or (self.cost or 0) > 0)


@dataclass(slots=True)
class BillingRow:
    """When a search for the user's calls is due, and the last stored budget."""

    housekeeping_read_at: datetime
    look_at: datetime | None = None
    limit: Decimal | None = None
    period: str | None = None
    started_at: datetime | None = None
    resets_at: datetime | None = None
    warned: tuple[datetime | None, int] = (None, 0)


@dataclass(slots=True)
class DayRow:
    """One user's UTC day. `cost` in US dollars."""

    messages: int = 0
    tokens: int = 0
    cost: Decimal = Decimal(0)


@dataclass(slots=True)
class MemoryDatabase:
    """Everything the stores share.

    `before` and `after` are awaited with the name of each operation, around its single atomic change: a `before` that
    raises is a database that was not reached, an `after` that raises is an answer that was lost.
    """

    clock: Callable[[], datetime] = utc_now
    before: Hook | None = None
    after: Hook | None = None
    users: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Mapping[str, object]] = field(default_factory=dict)
    """The metadata of sign-ups at Auth, by user id."""
    profiles: dict[str, ProfileRow] = field(default_factory=dict)
    turns: dict[str, TurnRow] = field(default_factory=dict)
    sessions: dict[str, SessionRow] = field(default_factory=dict)
    tickets: dict[str, datetime] = field(default_factory=dict)
    sign_ins: dict[str, str] = field(default_factory=dict)
    """User id by the id of the sign-in, for valid ones."""
    devices: dict[str, SignInDevice] = field(default_factory=dict)
    """By the id of the sign-in."""
    banned: set[str] = field(default_factory=set)
    """Users who are banned at Auth."""
    anonymous: set[str] = field(default_factory=set)
    """Users of Auth's anonymous sign-in, without address or password."""
    api_keys: dict[str, StoredApiKey] = field(default_factory=dict)
    """By id, the newest last."""
    addresses: dict[str, list[str]] = field(default_factory=dict)
    """By user, the hashes of the addresses that signed in, the newest last."""
    days: dict[tuple[str, date], DayRow] = field(default_factory=dict)
    attempts: dict[tuple[str, int], AttemptRow] = field(default_factory=dict)
    ledger: dict[str, LedgerEntry] = field(default_factory=dict)
    billing: dict[str, BillingRow] = field(default_factory=dict)
    key_hashes: dict[str, str] = field(default_factory=dict)
    """Key hash → the user who has or had it."""
    models: dict[str, list[ModelUsage]] = field(default_factory=dict)
    """By user, the usage of each model per day, added by tests."""
    standings: dict[str, Standing] = field(default_factory=dict)
    admins: set[str] = field(default_factory=set)
    """The users whose metadata, which only the project writes, says that they are admins."""
    actions: list[AdminAction] = field(default_factory=list)
    """The record of admins' actions, oldest first."""
    deleted_usage: list[LedgerEntry] = field(default_factory=list)
    """What deleted users spent, without their names and turns."""

    def billing_of(self, user_id: str) -> BillingRow:
        """The user's row, created if it is missing."""
        return self.billing.setdefault(user_id, BillingRow(self.clock()))

    def sign_up(self, email: str | None = None, metadata: Mapping[str, object] | None = None) -> str:
        """A user of the project, as Supabase Auth would store it with the sign-up's `metadata`. Returns the id."""
        user_id = str(uuid.uuid4())
        self.users[user_id] = email or f"{user_id[:8]}@example.com"
        self.metadata[user_id] = metadata or {}
        return user_id

    def with_steps(self, message: Message) -> Message:
        """The message as it is read together with its steps."""
        return replace(message, steps=self.turns[message.turn_id].steps) if message.role == "assistant" else message

    def delete_user(self, user_id: str) -> None:
        """Delete the user and all rows that depend on it."""
        del self.users[user_id]
        self.metadata.pop(user_id, None)
        self.key_hashes = {key: owner for key, owner in self.key_hashes.items() if owner != user_id}
        self.profiles.pop(user_id, None)
        self.sessions.pop(user_id, None)
        self.sign_ins = {key: owner for key, owner in self.sign_ins.items() if owner != user_id}
        self.api_keys = {key: row for key, row in self.api_keys.items() if row.user_id != user_id}
        self.turns = {key: row for key, row in self.turns.items() if row.turn.user_id != user_id}
        self.days = {key: day for key, day in self.days.items() if key[0] != user_id}
        self.attempts = {key: row for key, row in self.attempts.items() if row.user_id != user_id}
        self.ledger = {key: row for key, row in self.ledger.items() if row.user_id != user_id}
        self.billing.pop(user_id, None)
        self.addresses.pop(user_id, None)
        self.models.pop(user_id, None)
        self.standings.pop(user_id, None)
        self.admins.discard(user_id)

    def refuse_last_admin(self, user_id: str) -> None:
        """Raises PlatformError(last_admin) if the user is the only admin whose account is not closed."""
        others = [
            other
            for other in self.admins - {user_id}
            if other not in self.profiles or not self.profiles[other].account.agent_status.closed
        ]
        if user_id in self.admins and not others:
            raise PlatformError(ErrorCode.LAST_ADMIN)

    async def reached(self, operation: str) -> None:
        if self.before is not None:
            await self.before(operation)

    async def answered(self, operation: str) -> None:
        if self.after is not None:
            await self.after(operation)

    def profile(self, user_id: str, email: str | None = None, name: str | None = None) -> ProfileRow:
        """The user's profile row, created if it is missing. Raises PlatformError(unauthorized) for an unknown user."""
        if user_id not in self.users:
            raise PlatformError(ErrorCode.UNAUTHORIZED, "This account no longer exists.")
        if user_id not in self.profiles:
            name = name or self.name_at_auth(user_id)
            self.profiles[user_id] = ProfileRow(self._new_account(user_id, self.users[user_id] or email or "", name))
        return self.profiles[user_id]

    def name_at_auth(self, user_id: str) -> str | None:
        """The user's name in the metadata of the sign-up."""
        metadata = self.metadata.get(user_id, {})
        for key in ("name", "full_name", "display_name"):
            text = metadata.get(key)
            if isinstance(text, str) and (name := re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()[:100].strip()):
                return name
        return None

    def _new_account(self, user_id: str, email: str, name: str | None) -> Account:
        now = self.clock()
        return Account(
            user_id=user_id,
            email=email,
            name=name,
            agent_status=AgentStatus.PROVISIONING,
            status_reason=None,
            encrypted_key=None,
            customer_ready=False,
            key_ready=False,
            organization_id=None,
            member_id=None,
            tools_ready=False,
            provider_id=None,
            agent_id=None,
            conversation_id=None,
            told_name=None,
            customer_email=None,
            config_hash=None,
            intent=None,
            created_at=now,
            updated_at=now,
            is_admin=user_id in self.admins,
        )

    def of_user(self, user_id: str) -> list[TurnRow]:
        """The user's turns by number."""
        rows = [row for row in self.turns.values() if row.turn.user_id == user_id]
        return sorted(rows, key=lambda row: row.turn.number)

    def running(self, user_id: str) -> TurnRow | None:
        return next((row for row in self.of_user(user_id) if row.turn.status is TurnStatus.RUNNING), None)

    def waiting(self, user_id: str) -> list[TurnRow]:
        return [row for row in self.of_user(user_id) if row.turn.status is TurnStatus.QUEUED]

    def shown(self, row: TurnRow) -> Turn:
        """The turn for the port, with its position in the queue (1 is next)."""
        if row.turn.status is not TurnStatus.QUEUED:
            return replace(row.turn, queue_position=None)
        ids = [other.turn.id for other in self.waiting(row.turn.user_id)]
        return replace(row.turn, queue_position=ids.index(row.turn.id) + 1)

    def forgotten(self, turn: Turn) -> tuple[Forgotten, ...]:
        """The turns that the send of `turn` carries: the newest ten, in order."""
        lost = [
            Forgotten(row.turn.id, row.turn.user_message.content, row.turn.message.content if row.turn.message else "")
            for row in self.of_user(turn.user_id)
            if row.turn.status in (TurnStatus.FAILED, TurnStatus.CANCELLED)
            and row.turn.started_at is not None
            and row.carried_by is None
            and row.turn.id != turn.id
        ]
        return tuple(lost[-10:])

    def count_message(self, user_id: str) -> None:
        """Add to the user's day."""
        self.days.setdefault((user_id, self.clock().date()), DayRow()).messages += 1


def mark(turn: Turn, status: MessageStatus) -> Turn:
    """The turn with its user message in another state."""
    return replace(turn, user_message=replace(turn.user_message, status=status))
