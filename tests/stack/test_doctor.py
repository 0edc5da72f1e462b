"""`chat doctor` on the real stack: content with what `chat up` made, and specific about each thing that is wrong."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.stack.own_redis import OwnRedis
from tests.stack.running_stack import RunningStack


async def diagnosis(stack: RunningStack, **changed: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """(exit code, findings by "service name") with some settings changed."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "server", "doctor", "--json"],
        env={"PATH": os.environ["PATH"], **stack.env, **changed},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = json.loads(done.stdout)
    return done.returncode, {f"{row['service']} {row['name']}": row for row in rows}


async def test_nothing_is_wrong_with_the_local_stack(stack: RunningStack) -> None:
    code, found = await diagnosis(stack)
    assert {name: row["says"] for name, row in found.items() if row["level"] != "ok"} == {}
    assert code == 0
    assert len(found) == 21


@pytest.mark.parametrize(
    ("setting", "value", "check", "says"),
    [
        ("LITELLM_MASTER_KEY", "sk-wrong", "litellm master_key", "refuses LITELLM_MASTER_KEY"),
        ("LITELLM_BASE_URL", "http://127.0.0.1:9", "litellm alive", "did not answer"),
        ("AGENT_MODEL", "gpt-999", "litellm model", "gpt-999 is not listed"),
        ("LITELLM_URL_FOR_LETTA", "http://127.0.0.1:9", "letta reaches_litellm", "cannot reach the model gateway"),
        ("LETTA_API_TOKEN", "wrong", "letta password", "refuses LETTA_API_TOKEN"),
        ("LETTA_BASE_URL", "http://127.0.0.1:9", "letta version", "did not answer"),
        ("SUPABASE_URL", "http://127.0.0.1:9", "supabase reachable", "no answer"),
        ("SUPABASE_ANON_KEY", "sb_publishable_wrong", "supabase anon_key", "refuses SUPABASE_ANON_KEY"),
        ("SUPABASE_SERVICE_KEY", "sb_secret_wrong", "supabase service_key", "refuses SUPABASE_SERVICE_KEY"),
        ("SUPABASE_DB_URL", "postgresql://nobody@127.0.0.1:9/x", "supabase migrations", "did not answer"),
        ("REDIS_URL", "redis://127.0.0.1:9/0", "redis version", "does not answer"),
    ],
)
async def test_each_wrong_setting_is_named(
    stack: RunningStack, setting: str, value: str, check: str, says: str
) -> None:
    code, found = await diagnosis(stack, **{setting: value})
    assert code == 1
    assert [name for name, row in found.items() if row["level"] == "fail"] == [check]
    assert says in found[check]["says"]
    assert found[check]["mend"]


async def test_a_redis_for_several_instances_is_looked_at(stack: RunningStack, redis_server: OwnRedis) -> None:
    code, found = await diagnosis(stack, REDIS_URL=redis_server.url)
    assert (code, found["redis version"]["level"], found["redis writes"]["level"]) == (0, "ok", "ok")
    redis_server.fill()
    try:
        code, found = await diagnosis(stack, REDIS_URL=redis_server.url)
        assert (code, found["redis writes"]["level"]) == (1, "fail")
    finally:
        redis_server.make_room()


async def test_the_two_supabase_keys_swapped_are_noticed(stack: RunningStack) -> None:
    anon, service = stack.env["SUPABASE_ANON_KEY"], stack.env["SUPABASE_SERVICE_KEY"]
    _, found = await diagnosis(stack, SUPABASE_ANON_KEY=service, SUPABASE_SERVICE_KEY=anon)
    assert "row level security" in found["supabase anon_key"]["says"]


async def test_a_weak_secret_key_is_a_warning_in_development(stack: RunningStack) -> None:
    code, found = await diagnosis(stack, SECRET_KEY="short")
    assert (code, found["settings secret_key"]["level"]) == (0, "warn")
