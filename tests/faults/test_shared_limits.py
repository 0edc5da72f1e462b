"""Two instances count rates together, and close the connections of a blocked user on both."""

import asyncio
import time
from collections import Counter

import psycopg
import pytest

from tests.conftest import NewServer
from tests.faults.two_servers import TwoServers, start_two
from tests.stack.chat_client import TIMEOUT, Json
from tests.stack.own_redis import OwnRedis
from tests.stack.own_server import ServerProcess

PER_MINUTE = 12


@pytest.fixture(scope="module")
async def pair(new_shared_server: NewServer, redis_server: OwnRedis) -> tuple[ServerProcess, ServerProcess]:
    return await start_two(
        new_shared_server,
        REDIS_URL=redis_server.url,
        MEMORY_REQUESTS_PER_MINUTE=str(PER_MINUTE),
        SIGN_INS_PER_MINUTE="4",
    )


async def test_a_users_rate_is_one_for_both_instances(both: TwoServers) -> None:
    ann, ben = await both.user(), await both.user()

    async def ask(number: int) -> tuple[int, Json]:
        server = both.first if number % 2 else both.second
        answer: tuple[int, Json] = await both.call(server, ann, "PATCH", "/agent/memory/none", {"value": "x"})
        return answer

    began = time.monotonic()
    answers = await asyncio.gather(*(ask(number) for number in range(3 * PER_MINUTE)))
    refilled = (time.monotonic() - began) * PER_MINUTE / 60
    refused = [body for status, body in answers if status == 429]
    assert PER_MINUTE <= len(answers) - len(refused) <= PER_MINUTE + 1 + refilled
    assert {(body["code"], body["rate_limit"]) for body in refused} == {("rate_limited", "memory_requests")}
    for server in (both.first, both.second):
        assert (await both.call(server, ben, "PATCH", "/agent/memory/none", {"value": "x"}))[0] == 404


async def test_wrong_passwords_are_counted_over_both_instances(both: TwoServers) -> None:
    ann = await both.user()
    wrong = {"email": ann.email, "password": "not this one"}

    async def guess(number: int) -> str:
        server = both.first if number % 2 else both.second
        async with both.http.post(f"{server.url}/api/v1/auth/login", json=wrong) as answer:
            return str((await answer.json())["code"])

    began = time.monotonic()
    codes = Counter(await asyncio.gather(*(guess(number) for number in range(24))))
    refilled = (time.monotonic() - began) * 2 * 4 / 60
    # Four from anywhere, and four from this address, which has signed in: eight, not sixteen.
    assert set(codes) == {"unauthorized", "rate_limited"}
    assert 8 <= codes["unauthorized"] <= 8 + 2 + refilled


async def test_a_user_blocked_on_one_instance_is_disconnected_from_the_other(
    both: TwoServers, server_env: dict[str, str]
) -> None:
    root, ann = await both.user(), await both.user()
    async with await psycopg.AsyncConnection.connect(server_env["SUPABASE_DB_URL"], autocommit=True) as database:
        await database.execute("select public.set_admin(%s, true, null, 'test')", [root.id])
    phone, laptop = await both.device(ann, both.first), await both.device(ann, both.second)
    status, _ = await both.call(both.first, root, "POST", f"/admin/users/{ann.id}/block", {})
    assert status == 200
    for device in (phone, laptop):
        async with asyncio.timeout(TIMEOUT):
            while device.stopped_because is None:
                await asyncio.sleep(0.05)
        assert (device.stopped_because, device.closes[4503]) == ("closed with 4503", 1)
    for server in (both.first, both.second):
        status, body = await both.call(server, ann, "GET", "/chat/history")
        assert (status, body["code"]) == (403, "account_blocked")
