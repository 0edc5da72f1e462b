"""The stack's LiteLLM: the cost of a call, and that neither the model's errors nor a killed database engine stop it."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from server.stack.litellm_config import GPT_4_PRICES
from tests.stack.running_stack import RunningStack

TIMEOUT = 180.0
"""Timeout, in seconds, for effects that come with a delay at LiteLLM."""


class LiteLLMUser:
    """Calls LiteLLM with a virtual key of this test's own, and as administrator."""

    def __init__(self, http: aiohttp.ClientSession, env: dict[str, str]) -> None:
        self._http = http
        self._url = env["LITELLM_BASE_URL"]
        self._master = env["LITELLM_MASTER_KEY"]
        self.key = f"sk-test-{uuid.uuid4().hex}"

    async def administer(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self._master}"}
        async with self._http.request(method, self._url + path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def make_key(self) -> int:
        user = f"test-{uuid.uuid4().hex}"
        status, _ = await self.administer("POST", "/key/generate", {"user_id": user, "key": self.key})
        return status

    async def ask(self, text: str, preface: str = "") -> tuple[int, dict[str, Any]]:
        messages = [{"role": "system", "content": preface}, {"role": "user", "content": text}]
        headers = {"Authorization": f"Bearer {self.key}"}
        body = {"model": "gpt-4", "messages": messages, "user": self.key}
        async with self._http.post(f"{self._url}/v1/chat/completions", json=body, headers=headers) as response:
            return response.status, await response.json()

    async def spend_rows(self, count: int) -> list[dict[str, Any]]:
        """The key's rows, newest first, once there are at least this many."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                _, rows = await self.administer("GET", f"/spend/logs?api_key={self.key}")
                if len(rows) >= count:
                    return list(rows)
                await asyncio.sleep(0.2)


@pytest.fixture
async def user(stack: RunningStack, http: aiohttp.ClientSession) -> AsyncIterator[LiteLLMUser]:
    user = LiteLLMUser(http, stack.env)
    assert await user.make_key() == 200
    yield user
    await user.administer("POST", "/key/delete", {"keys": [user.key]})


async def test_a_call_costs_its_tokens_at_our_prices_cached_ones_at_theirs(user: LiteLLMUser) -> None:
    preface = " ".join(f"Fact {n} about nothing." for n in range(400))
    usages = [(await user.ask(f"ECHO {word}", preface))[1]["usage"] for word in ("one", "two")]

    assert usages[1]["prompt_tokens_details"]["cached_tokens"] > 0
    rows = await user.spend_rows(2)
    spent = sorted(round(Decimal(str(row["spend"])), 9) for row in rows)
    assert spent == sorted(price(usage) for usage in usages)


async def test_an_error_of_the_model_reaches_the_caller_and_does_not_stop_the_next_call(user: LiteLLMUser) -> None:
    statuses = [(await user.ask(f"ERR {status}"))[0] for status in (500, 429, 503)]

    assert statuses == [500, 429, 503]
    assert (await user.ask("ECHO still here"))[0] == 200


async def test_an_unknown_key_is_refused(stack: RunningStack, http: aiohttp.ClientSession) -> None:
    status, answer = await LiteLLMUser(http, stack.env).ask("hello")

    assert status == 401
    assert answer["error"]["type"] == "token_not_found_in_db"


@pytest.mark.alone
async def test_a_killed_database_engine_is_replaced(stack: RunningStack, user: LiteLLMUser) -> None:
    (engine,) = engines(stack)
    os.kill(engine, signal.SIGKILL)

    async with asyncio.timeout(TIMEOUT):
        while await user.make_key() != 200:
            await asyncio.sleep(0.1)

    assert engines(stack) != [engine]
    assert (await user.ask("ECHO hello"))[0] == 200
    assert len(await user.spend_rows(1)) == 1


def price(usage: dict[str, Any]) -> Decimal:
    """The cost of the call in US dollars, unrounded."""
    prices = {name: Decimal(str(value)) for name, value in GPT_4_PRICES.items()}
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    total: Decimal = (
        (usage["prompt_tokens"] - cached) * prices["input_cost_per_token"]
        + cached * prices["cache_read_input_token_cost"]
        + usage["completion_tokens"] * prices["output_cost_per_token"]
    )
    return round(total, 9)


def engines(stack: RunningStack) -> list[int]:
    """The pids of LiteLLM's children that are database engines."""
    threads = Path(f"/proc/{stack.status()['litellm']['pid']}/task").glob("*/children")
    children = [pid for thread in threads for pid in thread.read_text().split()]
    return [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "query-engine"]
