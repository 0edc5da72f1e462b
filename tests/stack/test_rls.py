"""Row level security, tested through PostgREST with real tokens: users read only their own rows."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import psycopg
import pytest

from server.adapters.supabase.accounts import SupabaseAccountStore
from server.ports import Principal
from server.protocol.shapes import Turn
from tests.stack.supabase_users import Visitor, client_of, converse, sign_up, token_of

TABLES = {
    "user_profiles": "id",
    "profiles": "id",
    "turns": "user_id",
    "messages": "user_id",
    "usage_metrics": "user_id",
    "usage_totals": "user_id",
    "ledger": "user_id",
    "usage_by_model": "user_id",
    "billing_accounts": "user_id",
    "budget_standings": "user_id",
}
"""The tables that users may read, and the column with the owner of a row."""

HIDDEN_TABLES = (
    *("sessions", "tickets", "attempts", "model_keys", "known_addresses"),
    *("admin_actions", "admin_outcomes"),
)
HIDDEN_COLUMNS = {
    "user_profiles": (
        "litellm_key",
        "litellm_key_hash",
        "customer_ready",
        "key_ready",
        "letta_organization_id",
        "letta_member_id",
        "tools_ready",
        "letta_provider_id",
        "letta_conversation_id",
        "told_name",
        "plan",
        "config_hash",
        "intent",
        "provisioning_owner",
        "provisioning_fence",
        "provisioning_expires_at",
    ),
    "turns": ("content_hash", "run_id", "past_run_ids", "carried_by"),
    "ledger": ("id", "request_id", "source", "price", "flag", "recorded_at"),
    "billing_accounts": ("look_at", "reread_at", "budget_read_at", "warned_level", "warned_period"),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """Ann reads, Ben has rows; `nobody` has only the publishable key."""

    ann: Visitor
    nobody: Visitor
    ann_id: str
    ben: Principal
    ben_turn: Turn
    functions: dict[str, list[str]]
    """Each function of the public schema with its parameters' names."""


@pytest.fixture(scope="module")
async def scene(supabase_env: dict[str, str]) -> AsyncIterator[Scene]:
    client = client_of(supabase_env)
    ann, ben = await sign_up(client), await sign_up(client)
    accounts = SupabaseAccountStore(client)
    for principal in (ann, ben):
        await accounts.ensure(principal.user_id, principal.email, None)
    [_], [ben_turn] = await converse(client, ann.user_id, "ann's"), await converse(client, ben.user_id, "ben's")
    async with httpx.AsyncClient() as http:
        token = token_of(ann)
        yield Scene(
            Visitor(http, supabase_env, token),
            Visitor(http, supabase_env, None),
            ann.user_id,
            ben,
            ben_turn,
            await _functions(supabase_env["SUPABASE_DB_URL"]),
        )
    await client.aclose()


async def _functions(dsn: str) -> dict[str, list[str]]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        cursor = await connection.execute(
            "select proname, coalesce(proargnames, '{}') from pg_proc where pronamespace = 'public'::regnamespace"
        )
        return dict(await cursor.fetchall())


async def test_every_table_is_tested_here(supabase_env: dict[str, str]) -> None:
    async with await psycopg.AsyncConnection.connect(supabase_env["SUPABASE_DB_URL"]) as connection:
        cursor = await connection.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'm')"
        )
        assert {name for (name,) in await cursor.fetchall()} == {*TABLES, *HIDDEN_TABLES}


@pytest.mark.parametrize("table", TABLES)
async def test_users_see_their_own_rows_and_no_others(scene: Scene, table: str) -> None:
    whose = TABLES[table]
    mine = await scene.ann.ask("GET", f"{table}?select={whose}")
    theirs = await scene.ann.ask("GET", f"{table}?select={whose}&{whose}=eq.{scene.ben.user_id}")

    assert mine.body
    assert {row[whose] for row in mine.body} == {scene.ann_id}
    assert (theirs.status, theirs.body) == (200, [])


@pytest.mark.parametrize("table", [*TABLES, *HIDDEN_TABLES])
async def test_without_a_token_nothing_is_seen(scene: Scene, table: str) -> None:
    column = TABLES.get(table, "*")
    assert (await scene.nobody.ask("GET", f"{table}?select={column}")).refused


async def test_ones_own_profile_is_read_whole_and_holds_nothing_that_is_hidden(scene: Scene) -> None:
    [profile] = (await scene.ann.ask("GET", "profiles?select=*")).body
    assert profile["id"] == scene.ann_id
    assert set(profile) == {
        *("id", "email", "name", "agent_status", "status_reason", "agent_id", "created_at", "updated_at")
    }


@pytest.mark.parametrize("table", HIDDEN_TABLES)
async def test_coordination_tables_are_hidden_from_users(scene: Scene, table: str) -> None:
    assert (await scene.ann.ask("GET", f"{table}?select=*")).refused


@pytest.mark.parametrize(("table", "column"), [(t, c) for t, columns in HIDDEN_COLUMNS.items() for c in columns])
async def test_keys_and_coordination_columns_are_hidden_even_in_ones_own_row(
    scene: Scene, table: str, column: str
) -> None:
    assert (await scene.ann.ask("GET", f"{table}?select={column}")).refused
    assert (await scene.ann.ask("GET", f"{table}?select={TABLES[table]}&{column}=not.is.null")).refused
    assert (await scene.ann.ask("GET", f"{table}?select={TABLES[table]}&order={column}")).refused


async def test_a_key_cannot_be_reached_by_joining_to_it(scene: Scene) -> None:
    answer = await scene.ann.ask("GET", "messages?select=id,user_profiles(litellm_key)")
    assert answer.status != 200


async def test_joining_shows_no_rows_of_others(scene: Scene) -> None:
    answer = await scene.ann.ask("GET", "turns?select=id,messages(user_id,content)")

    assert answer.status == 200
    assert {message["user_id"] for turn in answer.body for message in turn["messages"]} == {scene.ann_id}


@pytest.mark.parametrize("who", ["ann", "nobody"])
@pytest.mark.parametrize(
    "table",
    [
        "user_profiles",
        "profiles",
        "turns",
        "messages",
        "usage_metrics",
        "ledger",
        "billing_accounts",
        "attempts",
        "model_keys",
        "sessions",
        "tickets",
        "known_addresses",
    ],
)
async def test_users_cannot_write_through_postgrest(scene: Scene, who: str, table: str) -> None:
    visitor: Visitor = getattr(scene, who)
    whose = TABLES.get(table, "id" if table == "tickets" else "user_id")
    key = scene.ann_id if table != "tickets" else "ticket"
    change = {whose: key}

    assert (await visitor.ask("POST", table, change)).refused
    assert (await visitor.ask("POST", f"{table}?on_conflict={whose}", change)).refused
    assert (await visitor.ask("PATCH", f"{table}?{whose}=eq.{key}", change)).refused
    assert (await visitor.ask("DELETE", f"{table}?{whose}=eq.{key}")).refused


@pytest.mark.parametrize("who", ["ann", "nobody"])
async def test_users_cannot_call_the_platforms_functions(scene: Scene, who: str) -> None:
    visitor: Visitor = getattr(scene, who)
    assert len(scene.functions) >= 20
    for name, parameters in scene.functions.items():
        arguments = {parameter: _plausible(parameter, scene) for parameter in parameters}
        answer = await visitor.ask("POST", f"rpc/{name}", arguments)
        assert answer.refused, (name, answer)


def _plausible(parameter: str, scene: Scene) -> object:
    """A value of the parameter's type that would do harm if the call were allowed."""
    values: dict[str, object] = {
        "p_user_id": scene.ben.user_id,
        "p_turn_id": scene.ben_turn.id,
        "p_owner": "tests",
        "p_fence": 1,
        "p_log_head": 1,
        "p_start": True,
        "p_max_waiting": 8,
        "p_session_id": scene.ben_turn.id,
        "p_max_unsent": 20,
        "p_per_minute": 0,
        "p_overloaded": False,
        "p_user_ids": [scene.ben.user_id],
        "p_attempt": 1,
        "p_limit": 10,
        "p_seconds": 10,
        "p_skip": 0,
        "p_since": "2026-01-01T00:00:00+00:00",
        "p_first": "2026-01-01",
        "p_last": "2100-01-01",
        "p_after": None,
        "p_resets_at": None,
        "p_found": json.dumps({"calls": [], "settled": []}),
        "p_expires_at": "2100-01-01T00:00:00+00:00",
        "p_on_busy": "enqueue",
        "p_patch": json.dumps({"agent_status": "active"}),
        "p_end": json.dumps({"turn_id": scene.ben_turn.id, "attempt": 1, "status": "failed", "text": ""}),
    }
    return values.get(parameter, "text")


async def test_private_schemas_cannot_be_reached(scene: Scene) -> None:
    assert (
        await scene.ann.ask("POST", "rpc/take_session", {"p_user_id": scene.ben.user_id, "p_owner": "x"})
    ).status == 404


async def test_a_signature_of_another_users_token_is_refused(scene: Scene, supabase_env: dict[str, str]) -> None:
    header, payload, _ = token_of(scene.ben).split(".")
    signature = (scene.ann.token or "").split(".")[2]
    forged = Visitor(scene.ann.http, supabase_env, f"{header}.{payload}.{signature}")

    assert (await forged.ask("GET", "messages?select=id")).status == 401


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_the_database_itself_grants_clients_no_writes(supabase_env: dict[str, str], role: str) -> None:
    """The privileges as PostgreSQL records them, independent of PostgREST."""
    async with await psycopg.AsyncConnection.connect(supabase_env["SUPABASE_DB_URL"]) as connection:
        cursor = await connection.execute(
            "select relname, privilege from pg_class, unnest(array['INSERT','UPDATE','DELETE','TRUNCATE']) privilege"
            " where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')"
            " and has_table_privilege(%s, oid, privilege)",
            [role],
        )
        assert await cursor.fetchall() == []
        cursor = await connection.execute(
            "select proname from pg_proc where pronamespace in ('public'::regnamespace, 'private'::regnamespace)"
            " and has_schema_privilege(%s, pronamespace, 'usage') and has_function_privilege(%s, oid, 'execute')",
            [role, role],
        )
        assert await cursor.fetchall() == []


async def test_every_table_has_row_level_security_and_every_function_a_fixed_path(
    supabase_env: dict[str, str],
) -> None:
    async with await psycopg.AsyncConnection.connect(supabase_env["SUPABASE_DB_URL"]) as connection:
        cursor = await connection.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
            " and not relrowsecurity"
        )
        assert await cursor.fetchall() == []
        cursor = await connection.execute(
            "select proname from pg_proc where pronamespace in ('public'::regnamespace, 'private'::regnamespace)"
            " and not coalesce(proconfig, '{}') @> array['search_path=\"\"']"
        )
        assert await cursor.fetchall() == []
