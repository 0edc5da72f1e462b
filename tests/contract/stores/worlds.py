"""The two worlds of the store contracts: memory, and a real Supabase with its PostgreSQL.

A world offers what the ports cannot say: signing users up, letting time pass, looking at rows.
"""

import json
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

import psycopg
from pydantic import SecretStr

from server.adapters.supabase.accounts import SupabaseAccountStore
from server.adapters.supabase.admin import SupabaseAdminStore
from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.credentials import SupabaseCredentials
from server.adapters.supabase.ledger import SupabaseLedger
from server.adapters.supabase.reads import SupabaseReads
from server.adapters.supabase.rows import message_of
from server.adapters.supabase.sessions import SupabaseSessionStore
from server.ports import AccountStore, AdminStore, CredentialStore, Ledger, SessionStore, UserReads
from server.protocol.shapes import AgentStatus, Message
from tests.fakes.accounts import FakeAccountStore
from tests.fakes.admin import FakeAdminStore
from tests.fakes.credentials import FakeCredentials
from tests.fakes.database import MemoryDatabase
from tests.fakes.identity import FakeIdentity
from tests.fakes.ledger import FakeLedger
from tests.fakes.reads import FakeReads
from tests.fakes.store import FakeSessionStore


@dataclass(frozen=True, slots=True)
class Day:
    """A user's usage of today."""

    messages: int
    tokens: int
    cost: Decimal


class World(Protocol):
    """Where stores live. `owners` in tests are made unique, so that real databases can be used again and again."""

    sessions: SessionStore
    accounts: AccountStore
    ledger: Ledger
    admin: AdminStore
    credentials: CredentialStore
    reads: UserReads

    async def sign_in(self, user_id: str) -> str:
        """A sign-in of the user at Auth. Returns its id."""
        ...

    async def devices(self) -> set[str]:
        """The sign-ins of which a device is stored."""
        ...

    async def ban(self, user_id: str) -> None:
        """Ban the user at Auth."""
        ...

    async def make_anonymous(self, user_id: str) -> None:
        """Make the user one of Auth's anonymous sign-in."""
        ...

    async def sign_up(self, metadata: dict[str, object] | None = None) -> str:
        """A user with `metadata` of the sign-up at Auth."""
        ...

    async def delete_user(self, user_id: str) -> None: ...

    async def only_admins(self, *user_ids: str) -> None:
        """Make nobody else an admin."""
        ...

    async def let_leases_expire(self, user_id: str) -> None:
        """Make the user's lease and provisioning claim expire."""
        ...

    async def set_status(self, user_id: str, status: AgentStatus) -> None: ...

    async def set_address(self, user_id: str, email: str) -> None:
        """Change the user's e-mail address at Auth; "" for none."""
        ...

    async def today(self, user_id: str) -> Day: ...

    async def day(self, user_id: str, days_ago: int) -> Day: ...

    async def make_due(self, user_id: str) -> None:
        """Make a search for this user's calls due, and for no other's."""
        ...

    async def let_pass(self, user_id: str, seconds: float) -> None:
        """Move the user's attempts and messages to an earlier time."""
        ...

    async def end_period(self, user_id: str) -> None:
        """Make the current period of the user's budget end now."""
        ...

    async def history(self, user_id: str) -> list[Message]:
        """The user's messages by position."""
        ...

    async def tickets(self) -> set[str]: ...

    async def deleted_spend(self) -> Decimal:
        """What all deleted users spent, in US dollars."""
        ...

    async def aclose(self) -> None: ...


class MemoryWorld:
    """The fakes."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.database = MemoryDatabase(clock=lambda: self.now)
        self.sessions: SessionStore = FakeSessionStore(self.database)
        self.accounts: AccountStore = FakeAccountStore(self.database)
        self.ledger: Ledger = FakeLedger(self.database)
        self.admin: AdminStore = FakeAdminStore(self.database)
        self.credentials: CredentialStore = FakeCredentials(self.database)
        self.reads: UserReads = FakeReads(self.database, FakeIdentity(self.database))

    async def sign_in(self, user_id: str) -> str:
        session_id = str(uuid.uuid4())
        self.database.sign_ins[session_id] = user_id
        return session_id

    async def devices(self) -> set[str]:
        return self.database.devices.keys() & self.database.sign_ins.keys()

    async def ban(self, user_id: str) -> None:
        self.database.banned.add(user_id)

    async def make_anonymous(self, user_id: str) -> None:
        self.database.anonymous.add(user_id)

    async def sign_up(self, metadata: dict[str, object] | None = None) -> str:
        return self.database.sign_up(metadata=metadata)

    async def set_address(self, user_id: str, email: str) -> None:
        self.database.users[user_id] = email

    async def delete_user(self, user_id: str) -> None:
        self.database.delete_user(user_id)

    async def only_admins(self, *user_ids: str) -> None:
        self.database.admins = set(user_ids)
        for user_id, row in self.database.profiles.items():
            row.account = replace(row.account, is_admin=user_id in user_ids)

    async def let_leases_expire(self, user_id: str) -> None:
        self.database.sessions[user_id].heartbeat_at -= timedelta(seconds=13)
        self.database.profiles[user_id].claimed_until = self.now - timedelta(seconds=1)

    async def set_status(self, user_id: str, status: AgentStatus) -> None:
        row = self.database.profile(user_id)
        row.account = replace(row.account, agent_status=status)

    async def today(self, user_id: str) -> Day:
        return await self.day(user_id, 0)

    async def day(self, user_id: str, days_ago: int) -> Day:
        day = self.database.days[user_id, self.now.date() - timedelta(days=days_ago)]
        return Day(day.messages, day.tokens, day.cost)

    async def make_due(self, user_id: str) -> None:
        for account in self.database.billing.values():
            account.look_at = None
        self.database.billing[user_id].look_at = self.now

    async def let_pass(self, user_id: str, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def end_period(self, user_id: str) -> None:
        self.now += timedelta(seconds=1)
        self.database.billing[user_id].resets_at = self.now

    async def history(self, user_id: str) -> list[Message]:
        turns = [row.turn for row in self.database.of_user(user_id) if not row.is_deleted]
        return [message for turn in turns for message in (turn.user_message, turn.message) if message is not None]

    async def tickets(self) -> set[str]:
        return set(self.database.tickets)

    async def deleted_spend(self) -> Decimal:
        return sum((entry.cost or Decimal(0) for entry in self.database.deleted_usage), Decimal(0))

    async def aclose(self) -> None:
        pass


class SupabaseWorld:
    """A running project, named by the variables of its `stack.env`."""

    def __init__(self, client: SupabaseClient, database: psycopg.AsyncConnection[Any]) -> None:
        self.client = client
        self.database = database
        self._began = datetime.now(UTC).date()
        self.sessions: SessionStore = SupabaseSessionStore(client)
        self.accounts: AccountStore = SupabaseAccountStore(client)
        self.ledger: Ledger = SupabaseLedger(client)
        self.admin: AdminStore = SupabaseAdminStore(client)
        self.credentials: CredentialStore = SupabaseCredentials(client)
        self.reads: UserReads = SupabaseReads(client)

    @classmethod
    async def open(cls, env: dict[str, str]) -> "SupabaseWorld":
        client = SupabaseClient(
            env["SUPABASE_URL"], SecretStr(env["SUPABASE_ANON_KEY"]), SecretStr(env["SUPABASE_SERVICE_KEY"])
        )
        return cls(client, await psycopg.AsyncConnection.connect(env["SUPABASE_DB_URL"], autocommit=True))

    async def sign_in(self, user_id: str) -> str:
        session_id = str(uuid.uuid4())
        await self.database.execute("insert into auth.sessions (id, user_id) values (%s, %s)", [session_id, user_id])
        return session_id

    async def devices(self) -> set[str]:
        cursor = await self.database.execute("select session_id::text from public.sign_in_devices")
        return {session_id for (session_id,) in await cursor.fetchall()}

    async def ban(self, user_id: str) -> None:
        await self.database.execute(
            "update auth.users set banned_until = now() + interval '1 hour' where id = %s", [user_id]
        )

    async def make_anonymous(self, user_id: str) -> None:
        await self.database.execute("update auth.users set is_anonymous = true where id = %s", [user_id])

    async def sign_up(self, metadata: dict[str, object] | None = None) -> str:
        """A row of Auth's own table: what a sign-up leaves there."""
        user_id = str(uuid.uuid4())
        await self.database.execute(
            "insert into auth.users (id, email, raw_user_meta_data) values (%s, %s, %s)",
            [user_id, f"{user_id[:8]}@example.com", json.dumps(metadata or {})],
        )
        return user_id

    async def set_address(self, user_id: str, email: str) -> None:
        await self.database.execute("update auth.users set email = nullif(%s, '') where id = %s", [email, user_id])

    async def delete_user(self, user_id: str) -> None:
        await self.database.execute("delete from auth.users where id = %s", [user_id])

    async def only_admins(self, *user_ids: str) -> None:
        await self.database.execute(
            "update auth.users set raw_app_meta_data = case when id = any (%s::uuid[]) then %s::jsonb else '{}' end",
            [list(user_ids), '{"role": "admin", "provider": "email"}'],
        )

    async def let_leases_expire(self, user_id: str) -> None:
        await self.database.execute(
            "update public.sessions set heartbeat_at = heartbeat_at - interval '13 seconds' where user_id = %s",
            [user_id],
        )
        await self.database.execute(
            "update public.user_profiles set provisioning_expires_at = now() where id = %s", [user_id]
        )

    async def set_status(self, user_id: str, status: AgentStatus) -> None:
        await self.accounts.ensure(user_id, f"{user_id[:8]}@example.com", None)
        await self.database.execute(
            "update public.user_profiles set agent_status = %s where id = %s", [status, user_id]
        )

    async def today(self, user_id: str) -> Day:
        """Since the test began, perhaps before midnight."""
        return await self._days(user_id, self._began, date.max)

    async def day(self, user_id: str, days_ago: int) -> Day:
        date = self._began - timedelta(days=days_ago)
        return await self._days(user_id, date, date)

    async def _days(self, user_id: str, first: date, last: date) -> Day:
        cursor = await self.database.execute(
            "select total_messages, total_tokens, exact_cost, total_cost from public.usage_metrics where user_id = %s"
            " and date between %s and %s",
            [user_id, first, last],
        )
        days = await cursor.fetchall()
        assert days
        for _, _, exact, shown in days:
            assert shown == min(round(exact, 6), Decimal("9999.999999"))
        messages, tokens, exact, _ = (sum(figures) for figures in zip(*days, strict=True))
        return Day(messages, tokens, exact)

    async def make_due(self, user_id: str) -> None:
        await self.database.execute("update public.billing_accounts set look_at = null")
        await self.database.execute("update public.billing_accounts set look_at = now() where user_id = %s", [user_id])

    async def let_pass(self, user_id: str, seconds: float) -> None:
        earlier = timedelta(seconds=seconds)
        await self.database.execute(
            "update public.attempts set started_at = started_at - %(earlier)s, sent_at = sent_at - %(earlier)s,"
            " ended_at = ended_at - %(earlier)s where user_id = %(user_id)s",
            {"earlier": earlier, "user_id": user_id},
        )
        await self.database.execute(
            "update public.billing_accounts set look_at = look_at - %(earlier)s,"
            " housekeeping_read_at = housekeeping_read_at - %(earlier)s where user_id = %(user_id)s",
            {"earlier": earlier, "user_id": user_id},
        )
        await self.database.execute(
            "update public.sessions set paced_until = paced_until - %s where user_id = %s", [earlier, user_id]
        )

    async def end_period(self, user_id: str) -> None:
        await self.database.execute(
            "update public.billing_accounts set budget_resets_at = now() where user_id = %s", [user_id]
        )

    async def history(self, user_id: str) -> list[Message]:
        cursor = await self.database.execute(
            "select private.message_json(m) from public.messages m where user_id = %s order by position", [user_id]
        )
        return [message_of(row) for (row,) in await cursor.fetchall()]

    async def deleted_spend(self) -> Decimal:
        cursor = await self.database.execute("select coalesce(sum(cost), 0) from public.deleted_usage")
        [(cost,)] = await cursor.fetchall()
        return Decimal(cost)

    async def tickets(self) -> set[str]:
        cursor = await self.database.execute("select id from public.tickets")
        return {ticket_id for (ticket_id,) in await cursor.fetchall()}

    async def aclose(self) -> None:
        await self.client.aclose()
        await self.database.close()
