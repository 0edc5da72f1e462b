"""Row level security through PostgREST, with real tokens: users read only their own rows, write and call nothing.

The tables and columns are those of `rls.py`, the functions those of the database; `test_rls_sql.py` asks PostgreSQL
itself.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import httpx
import pytest

from tests.stack.chat_client import TIMEOUT
from tests.stack.rls import HIDDEN, READABLE, RELATIONS
from tests.stack.rls_scene import Pair, columns, functions, make_pair
from tests.stack.supabase_users import Visitor, client_of, token_of

IMPOSSIBLE = ("55000", "428C9")
"""PostgreSQL's codes for writes that nobody can make: of views of sums, and of generated columns."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Ann reads, Ben has rows; `nobody` has only the publishable key."""

    pair: Pair
    ann: Visitor
    nobody: Visitor
    columns: dict[str, list[str]]
    dsn: str

    def visitor(self, name: str) -> Visitor:
        return {"ann": self.ann, "nobody": self.nobody}[name]


@pytest.fixture(scope="module")
async def scene(supabase_env: dict[str, str]) -> AsyncIterator[Scene]:
    async with aclosing(client_of(supabase_env)) as client, httpx.AsyncClient(timeout=TIMEOUT) as http:
        pair, dsn = await make_pair(client), supabase_env["SUPABASE_DB_URL"]
        ann, nobody = (Visitor(http, supabase_env, token) for token in (token_of(pair.ann), None))
        yield Scene(pair, ann, nobody, columns(dsn), dsn)


def test_every_table_is_tested_here(scene: Scene) -> None:
    assert set(scene.columns) == set(RELATIONS)


@pytest.mark.parametrize("table", READABLE)
async def test_users_see_their_own_rows_and_no_others(scene: Scene, table: str) -> None:
    row = READABLE[table]
    mine = await scene.ann.ask("GET", f"{table}?select={','.join(row.readable)}")
    theirs = await scene.ann.ask("GET", f"{table}?select={row.owner}&{row.owner}=eq.{scene.pair.ben.user_id}")

    assert mine.body
    assert {one[row.owner] for one in mine.body} == {scene.pair.ann.user_id}
    assert set(mine.body[0]) == set(row.readable)
    assert (theirs.status, theirs.body) == (200, [])


@pytest.mark.parametrize("table", RELATIONS)
async def test_without_a_token_nothing_is_seen(scene: Scene, table: str) -> None:
    for column in ("*", *scene.columns[table]):
        assert (await scene.nobody.ask("GET", f"{table}?select={column}")).refused, column


@pytest.mark.parametrize("table", RELATIONS)
async def test_hidden_columns_are_refused_even_in_ones_own_row(scene: Scene, table: str) -> None:
    hidden = scene.columns[table] if table in HIDDEN else READABLE[table].hidden
    if hidden:
        assert (await scene.ann.ask("GET", f"{table}?select=*")).refused
    shown = READABLE[table].owner if table in READABLE else "*"
    for column in hidden:
        assert (await scene.ann.ask("GET", f"{table}?select={column}")).refused, column
        assert (await scene.ann.ask("GET", f"{table}?select={shown}&{column}=not.is.null")).refused, column
        assert (await scene.ann.ask("GET", f"{table}?select={shown}&order={column}")).refused, column


async def test_a_key_cannot_be_reached_by_joining_to_it(scene: Scene) -> None:
    answer = await scene.ann.ask("GET", "messages?select=id,user_profiles(litellm_key)")
    assert answer.status != 200


async def test_joining_shows_no_rows_of_others(scene: Scene) -> None:
    answer = await scene.ann.ask("GET", "turns?select=id,messages(user_id,content)")

    assert answer.status == 200
    assert {message["user_id"] for turn in answer.body for message in turn["messages"]} == {scene.pair.ann.user_id}


@pytest.mark.parametrize("who", ["ann", "nobody"])
@pytest.mark.parametrize("table", RELATIONS)
async def test_users_cannot_write_through_postgrest(scene: Scene, who: str, table: str) -> None:
    key = READABLE[table].owner if table in READABLE else scene.columns[table][0]
    rows = f"{table}?{key}=not.is.null"
    for column in scene.columns[table]:
        for method, path in (("POST", table), ("POST", f"{table}?on_conflict={key}"), ("PATCH", rows)):
            answer = await scene.visitor(who).ask(method, path, {column: None})  # null is of any type
            assert answer.refused or answer.body["code"] in IMPOSSIBLE, (method, path, column, answer)
    answer = await scene.visitor(who).ask("DELETE", rows)
    assert answer.refused or answer.body["code"] in IMPOSSIBLE, answer


@pytest.mark.parametrize("who", ["ann", "nobody"])
async def test_users_cannot_call_the_platforms_functions(scene: Scene, who: str) -> None:
    """With arguments that would do harm if the call were allowed: the ids in them are Ben's."""
    found = [function for function in functions(scene.dsn) if function.schema == "public"]
    assert len(found) > 30
    for function in found:
        arguments = {name: _plausible(name, kind, scene) for name, kind in function.parameters.items()}
        answer = await scene.visitor(who).ask("POST", f"rpc/{function.name}", arguments)
        assert answer.refused, (function.signature, answer)


def _plausible(parameter: str, kind: str, scene: Scene) -> object:
    """A value of the parameter's type."""
    ben, turn = scene.pair.ben.user_id, scene.pair.ben_turn.id
    values: dict[str, object] = {
        "uuid": ben if parameter == "p_user_id" else turn,
        "text": "text",
        "boolean": True,
        "integer": 1,
        "bigint": 1,
        "numeric": 1,
        "double precision": 1.5,
        "date": "2026-01-01",
        "timestamp with time zone": "2100-01-01T00:00:00+00:00",
        "text[]": [ben],
        "uuid[]": [ben],
        "jsonb": {},
    }
    return values[kind]


async def test_private_schemas_cannot_be_reached(scene: Scene) -> None:
    ben = scene.pair.ben.user_id
    assert (await scene.ann.ask("POST", "rpc/take_session", {"p_user_id": ben, "p_owner": "x"})).status == 404


async def test_a_signature_of_another_users_token_is_refused(scene: Scene, supabase_env: dict[str, str]) -> None:
    header, payload, _ = token_of(scene.pair.ben).split(".")
    signature = (scene.ann.token or "").split(".")[2]
    forged = Visitor(scene.ann.http, supabase_env, f"{header}.{payload}.{signature}")

    assert (await forged.ask("GET", "messages?select=id")).status == 401
