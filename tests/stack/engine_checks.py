"""Checks of the database engine, with the calls that LiteLLM makes, through its own client (prisma-client-py).

Runs under LiteLLM's interpreter, the only one that has this client. `python engine_checks.py run` prints, as its last
line, one JSON object: check name → null or the traceback. `python engine_checks.py hold` connects, prints the engine's
pid and waits. Each check gets a connected client and a fresh user id."""

import asyncio
import json
import sys
import traceback
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from prisma import Json, Prisma, errors  # type: ignore[import-not-found, unused-ignore]

Check = Callable[[Any, str], Awaitable[None]]


PATIENT = {"max_wait": timedelta(seconds=60), "timeout": timedelta(seconds=60)}
"""Of transactions that must succeed, also where this process or the engine waits for a processor."""


async def a_created_row_reads_back_exactly(db: Any, user: str) -> None:
    reset = datetime(2030, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    await db.litellm_usertable.create(
        data={
            "user_id": user,
            "metadata": Json({"text": 'ü\n"q"', "none": None, "list": [1, {"a": 2.5}]}),
            "models": ["x", "y"],
            "max_budget": 1e-05,
            "tpm_limit": 2**53 + 1,
            "budget_reset_at": reset,
        }
    )

    row = await db.litellm_usertable.find_unique(where={"user_id": user})
    assert row.metadata == {"text": 'ü\n"q"', "none": None, "list": [1, {"a": 2.5}]}
    assert row.models == ["x", "y"]
    assert row.max_budget == 1e-05
    assert row.tpm_limit == 2**53 + 1
    assert row.budget_reset_at == reset
    assert row.spend == 0.0


async def a_missing_row_is_none(db: Any, user: str) -> None:
    assert await db.litellm_usertable.find_unique(where={"user_id": user}) is None
    assert await db.litellm_usertable.update(where={"user_id": user}, data={"spend": 1}) is None
    assert await db.litellm_usertable.delete(where={"user_id": user}) is None


async def a_missing_row_raises_where_asked_to(db: Any, user: str) -> None:
    await _expect(errors.RecordNotFoundError, db.litellm_usertable.find_unique_or_raise(where={"user_id": user}))


async def a_second_row_with_the_same_key_is_refused(db: Any, user: str) -> None:
    await db.litellm_usertable.create(data={"user_id": user})

    await _expect(errors.UniqueViolationError, db.litellm_usertable.create(data={"user_id": user}))


async def numbers_are_incremented_and_lists_appended_to(db: Any, user: str) -> None:
    await db.litellm_usertable.create(data={"user_id": user, "models": ["x"]})

    row = await db.litellm_usertable.update(
        where={"user_id": user}, data={"spend": {"increment": 0.25}, "models": {"push": ["y"]}}
    )
    assert row.spend == 0.25
    assert row.models == ["x", "y"]
    changed = await db.litellm_usertable.update_many(where={"user_id": user}, data={"spend": {"increment": 1}})
    assert changed == 1
    assert await _spend(db, user) == 1.25


async def an_upsert_creates_then_updates(db: Any, user: str) -> None:
    data = {"create": {"user_id": user, "user_alias": "new"}, "update": {"user_alias": "known"}}

    assert (await db.litellm_usertable.upsert(where={"user_id": user}, data=data)).user_alias == "new"
    assert (await db.litellm_usertable.upsert(where={"user_id": user}, data=data)).user_alias == "known"


async def rows_are_filtered_ordered_counted_and_grouped(db: Any, user: str) -> None:
    table = db.litellm_usertable
    for name, alias, amount in (("a", "Red", 1.0), ("b", "Blue", 2.0), ("c", "Red", 4.0)):
        await table.create(data={"user_id": f"{user}{name}", "user_alias": alias, "spend": amount})
    mine = {"user_id": {"startswith": user}}

    assert await table.count(where=mine) == 3
    found = await table.find_many(
        where={
            "AND": [mine, {"OR": [{"spend": {"gt": 3}}, {"user_alias": {"contains": "blu", "mode": "insensitive"}}]}]
        },
        order={"spend": "desc"},
        take=5,
    )
    assert [row.user_alias for row in found] == ["Red", "Blue"]
    groups = await table.group_by(by=["user_alias"], where=mine, sum={"spend": True}, count=True)
    assert {group["user_alias"]: group["_sum"]["spend"] for group in groups} == {"Red": 5.0, "Blue": 2.0}
    assert await table.delete_many(where=mine) == 3


async def relations_are_followed(db: Any, user: str) -> None:
    budget = await db.litellm_budgettable.create(data={"max_budget": 3.0, "created_by": user, "updated_by": user})
    await db.litellm_verificationtoken.create(
        data={"token": user, "litellm_budget_table": {"connect": {"budget_id": budget.budget_id}}}
    )

    row = await db.litellm_verificationtoken.find_unique(where={"token": user}, include={"litellm_budget_table": True})
    assert row.litellm_budget_table.max_budget == 3.0
    await db.litellm_verificationtoken.delete(where={"token": user})
    await db.litellm_budgettable.delete(where={"budget_id": budget.budget_id})


async def json_can_be_searched(db: Any, user: str) -> None:
    await db.litellm_usertable.create(data={"user_id": user, "metadata": Json({"team": "north"})})
    table = db.litellm_usertable

    inside = {"path": ["team"], "string_contains": "nor"}
    assert await table.count(where={"user_id": user, "metadata": inside}) == 1
    assert await table.count(where={"user_id": user, "metadata": {"equals": Json({"team": "north"})}}) == 1
    assert await table.count(where={"user_id": user, "metadata": {"equals": Json({})}}) == 0


async def many_rows_are_created_and_duplicates_skipped(db: Any, user: str) -> None:
    await db.litellm_usertable.create(data={"user_id": user})

    rows = [{"user_id": user}, {"user_id": f"{user}2", "metadata": Json({})}]
    assert await db.litellm_usertable.create_many(data=rows, skip_duplicates=True) == 1
    await db.litellm_usertable.delete(where={"user_id": f"{user}2"})


async def a_batch_is_applied_whole(db: Any, user: str) -> None:
    await db.litellm_usertable.create(data={"user_id": user})

    async with db.batch_() as batch:
        batch.litellm_usertable.update_many(where={"user_id": user}, data={"spend": {"increment": 1}})
        batch.litellm_usertable.update_many(where={"user_id": user}, data={"spend": {"increment": 2}})

    assert await _spend(db, user) == 3


async def a_batch_that_fails_changes_nothing(db: Any, user: str) -> None:
    await db.litellm_usertable.create(data={"user_id": user})

    async def failing() -> None:
        async with db.batch_() as batch:
            batch.litellm_usertable.update_many(where={"user_id": user}, data={"spend": {"increment": 1}})
            batch.litellm_usertable.create(data={"user_id": user})

    await _expect(errors.UniqueViolationError, failing())
    assert await _spend(db, user) == 0


async def a_transaction_sees_its_own_changes_and_commits(db: Any, user: str) -> None:
    await db.litellm_usertable.create(data={"user_id": user})

    async with db.tx(**PATIENT) as tx:
        await tx.litellm_usertable.update(where={"user_id": user}, data={"spend": 5})
        (row,) = await tx.query_raw('SELECT spend FROM "LiteLLM_UserTable" WHERE user_id = $1', user)
        assert row["spend"] == 5
        assert await _spend(db, user) == 0

    assert await _spend(db, user) == 5


async def a_transaction_left_by_an_error_is_rolled_back(db: Any, user: str) -> None:
    await db.litellm_usertable.create(data={"user_id": user})

    async def failing() -> None:
        async with db.tx(**PATIENT) as tx:
            await tx.litellm_usertable.update(where={"user_id": user}, data={"spend": 5})
            raise ValueError

    await _expect(ValueError, failing())
    assert await _spend(db, user) == 0


async def a_transaction_past_its_time_is_refused(db: Any, user: str) -> None:
    await db.litellm_usertable.create(data={"user_id": user})

    async def slow() -> None:
        async with db.tx(timeout=timedelta(milliseconds=100)) as tx:
            await tx.query_raw("SELECT pg_sleep(0.5)::text")
            await tx.litellm_usertable.update(where={"user_id": user}, data={"spend": 5})

    await _expect(Exception, slow())
    assert await _spend(db, user) == 0


async def raw_parameters_of_every_kind_arrive(db: Any, _user: str) -> None:
    (row,) = await db.query_raw(
        "SELECT $1::text a, $2::int b, $3::timestamptz c, $4::float8 d, $5::jsonb e, $6::text[] f, $7::bool g, "
        "$8::text h, $9::bigint i, 'x' = ANY($10) j",
        *("s", 5, "2024-05-06T07:08:09+02:00", 1.25, '{"k": [1]}', ["a", "b"], True, None, 2**53 + 1, ["x"]),
    )

    assert (row["a"], row["b"], row["d"], row["g"], row["h"], row["j"]) == ("s", 5, 1.25, True, None, True)
    assert row["c"].startswith("2024-05-06T05:08:09")
    assert row["e"] == {"k": [1]}
    assert row["f"] == ["a", "b"]
    assert int(row["i"]) == 2**53 + 1


async def raw_results_of_unusual_types_are_readable(db: Any, _user: str) -> None:
    (row,) = await db.query_raw(
        "SELECT 'n'::name a, '5 min'::interval b, 'pg_class'::regclass c, ARRAY['a']::name[] d, "
        "pg_advisory_xact_lock(1) e, 1.5::numeric f, ARRAY[1,2]::bigint[] g, NULL::text h"
    )

    assert (row["a"], row["b"], row["c"], row["d"]) == ("n", "00:05:00", "pg_class", ["a"])
    assert float(row["f"]) == 1.5
    assert [int(item) for item in row["g"]] == [1, 2]
    assert row["h"] is None


async def a_raw_statement_tells_how_many_rows_it_changed(db: Any, user: str) -> None:
    await db.litellm_usertable.create(data={"user_id": user})

    changed = await db.execute_raw('UPDATE "LiteLLM_UserTable" SET spend = spend + $1 WHERE user_id = $2', 0.5, user)
    assert changed == 1
    assert await _spend(db, user) == 0.5


async def errors_of_raw_sql_have_the_text_of_postgresql(db: Any, _user: str) -> None:
    # LiteLLM searches for this text to detect that its view is missing.
    await _expect(errors.RawQueryError, db.query_raw("SELECT 1 FROM nope"), saying="nope")
    await _expect(errors.RawQueryError, db.query_raw("SELECT 1/0"), saying="division by zero")


async def unknown_fields_are_named(db: Any, _user: str) -> None:
    await _expect(errors.PrismaError, db.litellm_usertable.find_many(where={"bogus": 1}), saying="bogus")


async def missing_values_are_named(db: Any, _user: str) -> None:
    await _expect(errors.MissingRequiredValueError, db.litellm_usertable.create(data={}))


async def many_queries_at_once_are_all_answered(db: Any, user: str) -> None:
    await db.litellm_usertable.create(data={"user_id": user})

    queries = (db.litellm_usertable.find_unique(where={"user_id": user}) for _ in range(200))
    rows = await asyncio.gather(*queries)
    assert {row.user_id for row in rows} == {user}


async def lost_connections_are_replaced(db: Any, user: str) -> None:
    await db.litellm_usertable.create(data={"user_id": user})
    await asyncio.gather(*(_spend(db, user) for _ in range(10)))

    ended = await db.query_raw(
        "SELECT count(pg_terminate_backend(pid, 60000))::int AS n FROM pg_stat_activity "
        "WHERE application_name = 'litellm-engine' AND datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert ended[0]["n"] > 0
    await asyncio.gather(*(_spend(db, user) for _ in range(10)))


async def _spend(db: Any, user: str) -> float:
    """The user's row."""
    row = await db.litellm_usertable.find_unique(where={"user_id": user})
    return float(row.spend)


async def _expect(error: type[BaseException], call: Awaitable[Any], saying: str = "") -> None:
    """Assert that the call fails with this error."""
    try:
        answer = await call
    except error as raised:
        assert saying in str(raised), str(raised)  # noqa: PT017 - pytest is not installed here
    else:
        raise AssertionError(f"no {error.__name__}, but {answer!r}")


def checks() -> dict[str, Check]:
    """The public functions that take a client and a user."""
    found = {name: value for name, value in globals().items() if asyncio.iscoroutinefunction(value)}
    return {name: check for name, check in found.items() if name[0] != "_" and check.__code__.co_argcount == 2}


async def run() -> dict[str, str | None]:
    """Every check on one client, as LiteLLM has one."""
    results: dict[str, str | None] = {}
    async with Prisma() as db:
        for name, check in checks().items():
            user = f"u-{uuid.uuid4().hex[:12]}"
            try:
                await check(db, user)
                results[name] = None
            except Exception:
                results[name] = traceback.format_exc()
            await db.litellm_usertable.delete_many(where={"user_id": user})
    return results


def say(result: object) -> None:
    """Print for the test that started this process."""
    print(result, flush=True)  # noqa: T201 - the way back is standard output


async def hold() -> None:
    """Keep an engine running until killed."""
    db = Prisma()
    await db.connect()
    say(db._engine.process.pid)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "run":
        say(json.dumps(asyncio.run(run())))
    else:
        asyncio.run(hold())
