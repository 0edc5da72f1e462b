"""How the database's part grows: the statements of a turn and of a client's reads, with histories of different lengths.

The adapters are the server's own, on a connection to a PostgreSQL of the tests' stack instead of PostgREST, so only the
database is measured. PostgreSQL's statistics tell which of them reads a table from its beginning to its end.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, cast
from uuid import uuid4

import psycopg
from psycopg import sql

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.ledger import SupabaseLedger
from server.adapters.supabase.migration_files import project_migrations
from server.adapters.supabase.migrations import apply_migrations
from server.adapters.supabase.reads import SupabaseReads
from server.adapters.supabase.sessions import SupabaseSessionStore
from server.ports import Budget, Lease, NewTurn, Principal, TurnEnd
from server.protocol.limits import Allowance
from server.protocol.shapes import TurnStatus
from tests.bench.stack import running_stack
from tests.bench.table import Row, at_most, ratio
from tests.stack.schema import empty_project

CASES: Final = ((10, 10), (10, 1_000), (10, 100_000), (10_000, 100_000))
"""Users, and the messages of the one who is measured."""
OTHERS_MESSAGES: Final = 10
ROUNDS: Final = 30
FLAT: Final = 1.3
"""Longest history against shortest: more than this is no noise."""
SMALL_TABLES: Final = 100
"""Rows that PostgreSQL reads faster from a table's beginning to its end than by an index."""
GROUPS: Final = {
    "accept and finish of a turn": ("accept and start a turn", "note its run", "finish it"),
    "history page": ("history, newest page", "history, a page in the middle"),
    "usage": ("usage of 30 days", "usage by model, 30 days", "usage in all"),
    "snapshot": ("snapshot (open turns)",),
}
SCANNED: Final = "select coalesce(sum(seq_tup_read), 0) from pg_stat_xact_user_tables where schemaname = 'public'"

SEED: Final = """
insert into auth.users (id, email) select id, id || '@example.com' from unnest(%(users)s::uuid[]) id
  on conflict do nothing;
insert into public.user_profiles (id, email, agent_status) select id, id || '@example.com', 'active'
  from unnest(%(users)s::uuid[]) id on conflict (id) do update set agent_status = 'active';
insert into public.turns (user_id, number, client_message_id, content_hash, status, usage, cost, cost_status,
    created_at, started_at, finished_at)
  select id, n, 'm' || n, 'hash', 'completed', '{}', 0.01, 'settled', at, at, at
  from unnest(%(users)s::uuid[]) id, generate_series(1, %(turns)s) n,
    lateral (select now() - (%(turns)s - n) * interval '10 minutes' as at) t;
insert into public.messages (user_id, turn_id, role, content, position, created_at)
  select t.user_id, t.id, r.role, 'Tell me about the weather of day ' || t.number, 2 * t.number + r.n, t.created_at
  from public.turns t, (values ('user', 0), ('assistant', 1)) r (role, n) where t.user_id = any(%(users)s);
insert into public.attempts (turn_id, attempt, user_id, started_at, sent_at, ended_at, outcome, settled_at)
  select id, 1, user_id, created_at, created_at, created_at, 'completed', created_at
  from public.turns where user_id = any(%(users)s);
insert into public.ledger (user_id, turn_id, attempt, request_id, status, source, outcome, model, prompt_tokens,
    completion_tokens, cost, started_at)
  select user_id, id, 1, id::text, 'settled', 'litellm', 'success', 'gpt', 800, 20, 0.01, created_at
  from public.turns where user_id = any(%(users)s);
insert into public.usage_metrics (user_id, date, total_messages, total_tokens, total_cost, exact_cost)
  select user_id, date, count(*), sum(total_tokens), sum(cost), sum(cost) from public.ledger
  where user_id = any(%(users)s) group by 1, 2 on conflict do nothing;
"""

Statement = Callable[[], Awaitable[object]]


class DirectClient:
    """Calls our SQL functions as PostgREST does."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection

    async def call(self, function: str, /, *, repeat: bool = True, vital: bool = False, **parameters: object) -> Any:
        named = [sql.SQL("{} => {}").format(sql.Identifier(f"p_{n}"), sql.Placeholder()) for n in parameters]
        query = sql.SQL("select public.{}({})").format(sql.Identifier(function), sql.SQL(", ").join(named))
        row = await (await self._connection.execute(query, list(parameters.values()))).fetchone()
        return None if row is None else row[0]

    async def read_as_user(self, user_id: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = await self.call("read_as_user", user_id=user_id, query=json.dumps(query))
        return rows

    async def search(self, function: str, /, **parameters: Any) -> Any:
        return await self.call(function, **parameters)


class Growth:
    """The statements of one user, each measured for itself. The steps of a turn are rolled back."""

    def __init__(self, connection: psycopg.AsyncConnection, user_id: str) -> None:
        client = cast("SupabaseClient", DirectClient(connection))
        self._connection = connection
        self._reads, self._store = SupabaseReads(client), SupabaseSessionStore(client)
        self._ledger = SupabaseLedger(client)
        self._user_id = user_id
        self._principal = Principal(user_id, "", None, datetime.now(UTC) + timedelta(hours=1))

    def reads(self) -> dict[str, Statement]:
        today, reads, who = date.today(), self._reads, self._principal  # noqa: DTZ011 - of the benchmark's own rows
        return {
            "history, newest page": lambda: reads.history(who, 50, before=None, after=None),
            "history, a page in the middle": lambda: reads.history(who, 50, before=30, after=None),
            "search, a rare word": lambda: reads.search(who, "7", 50, before=None, after=None),
            "snapshot (open turns)": lambda: self._store.open_turns(self._user_id),
            "usage of 30 days": lambda: reads.usage_days(who, today - timedelta(days=30), today),
            "usage by model, 30 days": lambda: reads.usage_models(who, today - timedelta(days=30), today),
            "usage in all": lambda: reads.usage_total(who),
            "budget": lambda: reads.standing(who),
        }

    async def others(self) -> dict[str, int]:
        """What else an instance calls for a session and for billing: the rows that each reads by scans of whole tables.
        All of it is rolled back."""
        scanned: dict[str, int] = {}
        async with self._connection.transaction(force_rollback=True):
            allowance = Allowance(per_minute=30)
            new = NewTurn.of(self._user_id, str(uuid4()), "Hello", "enqueue")
            accepted = await self._store.accept(new, "bench", start=True, allowance=allowance)
            assert accepted.lease is not None
            for name, statement in self._others(accepted.lease, accepted.turn.id, allowance).items():
                before = await scanned_rows(self._connection)
                await statement()
                scanned[name] = await scanned_rows(self._connection) - before
        return scanned

    def _others(self, lease: Lease, turn_id: str, allowance: Allowance) -> dict[str, Statement]:
        """In the order in which they can be called for a turn that runs."""
        store, ledger, user_id = self._store, self._ledger, self._user_id
        end = TurnEnd(turn_id, 1, TurnStatus.CANCELLED, "Hel", sent_after=0.1, run_completed=False)
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        return {
            "renew the leases": lambda: store.renew("bench"),
            "poll the owned sessions": lambda: store.owned_work("bench"),
            "search sessions without an owner": lambda: store.unowned_work(64),
            "read a turn": lambda: self._reads.turn(self._principal, turn_id, with_steps=True),
            "read a turn as its owner": lambda: store.turn(user_id, turn_id),
            "read a turn by its run": lambda: store.turn_by_run(user_id, "run"),
            "request a cancel": lambda: store.request_cancel(user_id, turn_id),
            "finish a cancelled turn": lambda: store.finish(lease, end),
            "retry it": lambda: store.retry(user_id, turn_id, "bench", start=False, allowance=allowance),
            "start a queued turn": lambda: store.start(lease),
            "release the lease": lambda: store.release(lease),
            "claim a session": lambda: store.claim(user_id, "bench"),
            "claim due searches": lambda: ledger.due(64),
            "search a user's calls": lambda: ledger.search(user_id, hour_ago),
            "store a budget": lambda: ledger.store_budget(user_id, Budget(Decimal(5), Decimal(1), "1mo", None)),
        }

    async def turn(self) -> dict[str, float]:
        """The milliseconds of each step of a turn."""
        steps: dict[str, float] = {}
        async with self._connection.transaction(force_rollback=True):
            new = NewTurn.of(self._user_id, str(uuid4()), "Hello", "enqueue")
            accepting = self._store.accept(new, "bench", start=True, allowance=Allowance(per_minute=30))
            steps["accept and start a turn"], accepted = await timed(lambda: accepting)
            assert accepted.lease is not None
            lease, turn = accepted.lease, accepted.turn
            steps["note its run"], _ = await timed(lambda: self._store.set_run(lease, turn.id, 1, "run"))
            end = TurnEnd(turn.id, 1, TurnStatus.COMPLETED, "Hello to you", sent_after=0.1, run_completed=True)
            steps["finish it"], _ = await timed(lambda: self._store.finish(lease, end))
        return steps


async def timed(statement: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = await statement()
    return (time.perf_counter() - began) * 1000, result


async def measure(url: str, user_id: str) -> tuple[dict[str, float], dict[str, int]]:
    """Medians in milliseconds by statement, and the rows that each of them read by scans of whole tables."""
    figures: dict[str, list[float]] = {}
    scanned: dict[str, int] = {}
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        growth = Growth(connection, user_id)
        for _ in range(ROUNDS):
            for name, milliseconds in (await growth.turn()).items():
                figures.setdefault(name, []).append(milliseconds)
            for name, statement in growth.reads().items():
                figures.setdefault(name, []).append((await timed(statement))[0])
        for name, statement in {"a turn": growth.turn, **growth.reads()}.items():
            async with connection.transaction():
                before = await scanned_rows(connection)
                await statement()
                scanned[name] = await scanned_rows(connection) - before
        scanned |= await growth.others()
    return {name: statistics.median(values) for name, values in figures.items()}, scanned


async def scanned_rows(connection: psycopg.AsyncConnection) -> int:
    row = await (await connection.execute(SCANNED)).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def project(users: int, length: int) -> Iterator[tuple[str, str]]:
    """A database with so many users, one of whom has so many messages: its address and this user's id."""
    stack = running_stack()
    with empty_project(stack.env["SUPABASE_DB_URL"]) as url:
        apply_migrations(url, project_migrations())
        ids = [str(uuid4()) for _ in range(users)]
        with psycopg.connect(url, autocommit=True) as connection:
            seed(connection, ids[1:], OTHERS_MESSAGES)
            seed(connection, ids[:1], length)
            connection.execute("vacuum analyze")
        yield url, ids[0]


def seed(connection: psycopg.Connection, users: Sequence[str], messages: int) -> None:
    for statement in SEED.split(";\n"):
        if statement.strip():
            connection.execute(statement, {"users": list(users), "turns": messages // 2})


def main(cases: Sequence[tuple[int, int]] = CASES) -> list[Row]:
    """Print the medians, and what the longest history costs against the shortest."""
    columns: list[tuple[dict[str, float], dict[str, int]]] = []
    for users, length in cases:
        with project(users, length) as (url, user_id):
            columns.append(asyncio.run(measure(url, user_id)))
    print(f"{'median ms; users x messages of one':>34}", *(f"{u:>6,} x {n:<8,}" for u, n in cases), "growth")
    for name in columns[0][0]:
        values = [figures[name] for figures, _ in columns]
        print(f"{name:>34}", *(f"{value:>12.2f}    " for value in values), f"{values[-1] / values[0]:.2f}")
    print("rows read by scans of whole tables, which may be small ones:")
    for name in columns[0][1]:
        print(f"{name:>34}", *(f"{scanned[name]:>12,}    " for _, scanned in columns))
    (first, _), (last, scanned) = columns[0], columns[-1]
    rows = [
        ratio(f"Growth: {what}", sum(last[one] for one in names), sum(first[one] for one in names), FLAT, "ms")
        for what, names in GROUPS.items()
    ]
    return [*rows, at_most("Growth: rows read by scans of whole tables", sum(scanned.values()), SMALL_TABLES)]
