"""`chat doctor` on the real stack: no findings for what `chat up` started, and a specific one for each wrong
setting."""

import asyncio
import json
import os
import uuid
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.stack.forked import run_chat
from tests.stack.own_redis import OwnRedis
from tests.stack.patches import warned_about
from tests.stack.running_stack import RunningStack

TRIES = 5


async def diagnosis(stack: RunningStack, *failing: str, **changed: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """(exit code, findings by "service name") with some settings changed. Repeated if others than `failing` fail: a
    busy service may not answer in time."""
    env = {"PATH": os.environ["PATH"], **stack.env, **changed}
    for _ in range(TRIES):
        done = await asyncio.to_thread(run_chat, "doctor", "--json", env=env)
        found = {f"{row['service']} {row['name']}": row for row in json.loads(done.stdout)}
        if {name for name, row in found.items() if row["level"] == "fail"} == set(failing):
            break
    return done.returncode, found


async def test_nothing_is_wrong_with_the_local_stack(stack: RunningStack) -> None:
    for _ in range(TRIES):
        code, found = await diagnosis(stack)
        wrong = {name: f"{row['level']}: {row['message']}" for name, row in found.items() if row["level"] != "ok"}
        if wrong.keys() == warned_about():
            break
    assert wrong.keys() == warned_about(), wrong
    assert code == 0
    assert len(found) == 26


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
    code, found = await diagnosis(stack, check, **{setting: value})
    assert code == 1
    assert [name for name, row in found.items() if row["level"] == "fail"] == [check]
    assert says in found[check]["message"]
    assert found[check]["remedy"]


async def test_a_redis_for_several_instances_is_checked(stack: RunningStack, redis_server: OwnRedis) -> None:
    code, found = await diagnosis(stack, REDIS_URL=redis_server.url)
    assert (code, found["redis version"]["level"], found["redis writes"]["level"]) == (0, "ok", "ok")
    redis_server.fill()
    try:
        code, found = await diagnosis(stack, "redis writes", REDIS_URL=redis_server.url)
        assert (code, found["redis writes"]["level"]) == (1, "fail")
    finally:
        redis_server.accept_writes()


async def test_swapped_supabase_keys_are_reported(stack: RunningStack) -> None:
    anon, service = stack.env["SUPABASE_ANON_KEY"], stack.env["SUPABASE_SERVICE_KEY"]
    code, found = await diagnosis(stack, "settings values", SUPABASE_ANON_KEY=service)
    assert (code, "row level security" in found["settings values"]["message"]) == (1, True)
    code, found = await diagnosis(stack, "settings values", SUPABASE_SERVICE_KEY=anon)
    assert (code, "set it to the secret key" in found["settings values"]["message"]) == (1, True)


FOUND_AT = {
    "SUPABASE_URL": "supabase reachable",
    "LITELLM_BASE_URL": "litellm alive",
    "LETTA_BASE_URL": "letta version",
}
"""Which check fails for a wrong address."""


@pytest.mark.parametrize("setting", FOUND_AT)
@pytest.mark.parametrize("kind", ["redirect", "path"])
async def test_the_address_to_set_is_named(stack: RunningStack, setting: str, kind: str) -> None:
    right = stack.env[setting].rstrip("/")

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=308, headers={"Location": right + request.path_qs})

    front = web.Application()
    front.router.add_route("*", "/{path:.*}", redirect)
    async with TestServer(front) as server:
        wrong = str(server.make_url("/")) if kind == "redirect" else f"{right}/dashboard/"
        code, found = await diagnosis(stack, FOUND_AT[setting], **{setting: wrong})
    assert code == 1
    (failed,) = [row for row in found.values() if row["level"] == "fail"]
    assert failed["remedy"] == f"Set {setting} to {right}."


async def test_a_wrong_database_password_is_reported_as_such(stack: RunningStack) -> None:
    url = stack.env["SUPABASE_DB_URL"]
    account, _, place = url.rpartition("@")
    user = account.partition("://")[2].partition(":")[0]
    code, found = await diagnosis(
        stack, "supabase migrations", SUPABASE_DB_URL=f"postgresql://{user}:wrong-hush@{place}"
    )
    assert (code, found["supabase migrations"]["level"]) == (1, "fail")
    assert "refuses the user name or password in SUPABASE_DB_URL" in found["supabase migrations"]["message"]
    assert "hush" not in str(found)


async def test_a_misspelt_variable_is_a_warning(stack: RunningStack) -> None:
    code, found = await diagnosis(stack, REDIS_ULR="redis://u:hush@127.0.0.1/0")
    assert (code, found["settings names"]["level"]) == (0, "warn")
    assert "REDIS_ULR (for REDIS_URL?)" in found["settings names"]["message"]
    assert "hush" not in str(found)


async def test_a_default_expiry_of_keys_is_a_warning(stack: RunningStack, http: aiohttp.ClientSession) -> None:
    """An expiry as LiteLLM's default_key_generate_params would set; the key has the alias of one of ours."""
    base, headers = stack.env["LITELLM_BASE_URL"], {"Authorization": f"Bearer {stack.env['LITELLM_MASTER_KEY']}"}
    body = {"key_alias": f"user {uuid.uuid4()} 0123456789ab", "duration": "30d"}
    async with http.post(f"{base}/key/generate", json=body, headers=headers) as response:
        key = (await response.json())["key"]
    try:
        code, found = await diagnosis(stack)
        assert (code, found["litellm keys"]["level"]) == (0, "warn")
        assert found["litellm keys"]["message"].startswith("1 of the newest 100 keys will expire")
    finally:
        async with http.post(f"{base}/key/delete", json={"keys": [key]}, headers=headers) as response:
            assert response.status == 200


async def test_a_weak_secret_key_is_a_warning_in_development(stack: RunningStack) -> None:
    code, found = await diagnosis(stack, SECRET_KEY="short")
    assert (code, found["settings secret_key"]["level"]) == (0, "warn")
