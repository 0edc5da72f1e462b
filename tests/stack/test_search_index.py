"""The index of words: a search reads its hits alone, and why it is not a query of the user's own."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

ANN, BEN = "6f0d2a52-0000-4000-8000-00000000000a", "6f0d2a52-0000-4000-8000-00000000000b"
"""Two users whose ids begin alike, so that the index does not tell their words apart."""
CYD = "7a0d2a52-0000-4000-8000-00000000000c"

USERS = "insert into auth.users (id, email) select id, id || '@example.com' from unnest(%(ids)s::uuid[]) id"
PROFILES = (
    "insert into public.user_profiles (id, email) select id, id || '@example.com' from unnest(%(ids)s::uuid[]) id"
)
TURNS = """
insert into public.turns (user_id, number, client_message_id, content_hash)
select id, 1, 'one', '' from unnest(%(ids)s::uuid[]) id
"""
MESSAGES = """
insert into public.messages (user_id, turn_id, role, position, content)
select t.user_id, t.id, 'user', n, case when n %% 100 = 50 then 'a needle' else 'in the hay' end
from public.turns t, generate_series(1, 400) n where t.user_id = any(%(ids)s::uuid[])
"""
READ = """
select pg_stat_get_xact_numscans(oid), pg_stat_get_xact_tuples_fetched(oid)
from pg_class where oid = 'public.messages'::regclass
"""
CONDITION = "select pg_get_expr(indexprs, indrelid) from pg_index where indexrelid = 'public.messages_words'::regclass"


@pytest.fixture
def database(supabase_env: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    """A transaction with the messages of three users, which is rolled back."""
    with psycopg.connect(supabase_env["SUPABASE_DB_URL"]) as connection:
        for statement in (USERS, PROFILES, TURNS, MESSAGES):
            connection.execute(statement.encode(), {"ids": [ANN, BEN, CYD]})
        yield connection
        connection.rollback()


def read_messages(database: psycopg.Connection[Any]) -> tuple[int, int]:
    """How often this transaction has read the whole table, and how many of its rows by an index."""
    [(scans, rows)] = database.execute(READ.encode()).fetchall()
    return scans, rows


def search(database: psycopg.Connection[Any], query: str) -> list[int]:
    call = "select public.search_messages(%s, %s, null, null, 9)"
    [(positions,)] = database.execute(call, [ANN, query]).fetchall()
    return list(positions)


def test_a_search_reads_its_hits_and_no_other_message(database: psycopg.Connection[Any]) -> None:
    """Of the user's and of those whose ids begin alike, however many messages and users there are."""
    scans, rows = read_messages(database)
    assert search(database, "NEED a") == [350, 250, 150, 50]
    assert read_messages(database) == (scans, rows + 2 * 4)
    assert search(database, "need hay") == []
    assert read_messages(database) == (scans, rows + 2 * 4)


def test_a_query_of_the_users_own_cannot_use_the_index(database: psycopg.Connection[Any]) -> None:
    """`@@` is not leakproof, so PostgreSQL evaluates the policy before it. If this fails, it can, and the positions
    need not be asked for by the service role."""
    [(expression,)] = database.execute(CONDITION.encode()).fetchall()
    database.execute("set local enable_seqscan = off")
    explain = f"explain select position from public.messages where {expression} @@ 'u6f0d2a52needle'::tsquery"

    def plan() -> str:
        return "\n".join(line for (line,) in database.execute(explain.encode()).fetchall())

    assert "messages_words" in plan()
    for name, value in (("request.jwt.claim.sub", ANN), ("request.jwt.claims", f'{{"sub": "{ANN}"}}')):
        database.execute("select set_config(%s, %s, true)", [name, value])
    database.execute("set local role authenticated")
    assert "messages_words" not in plan()
