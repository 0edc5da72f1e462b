"""Every model call is charged to the user who caused it: LiteLLM's spend log, our turns and the usage page agree."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp

from tests.stack.chat_client import PATIENCE, ChatUser
from tests.stack.conftest import NewUser
from tests.stack.running_stack import RunningStack


async def spend_rows(stack: RunningStack, http: aiohttp.ClientSession, user: ChatUser) -> list[dict[str, Any]]:
    """LiteLLM's successful rows of a user."""
    today = datetime.now(UTC).date()
    query = {
        "user_id": user.id,
        "start_date": str(today - timedelta(days=1)),
        "end_date": str(today + timedelta(days=1)),
        "summarize": "false",
    }
    headers = {"Authorization": f"Bearer {stack.env['LITELLM_MASTER_KEY']}"}
    async with http.get(f"{stack.env['LITELLM_BASE_URL']}/spend/logs", params=query, headers=headers) as response:
        rows = await response.json()
    return [row for row in rows if row["status"] == "success"]


async def test_usage_turns_and_spend_log_agree_per_user(
    stack: RunningStack, http: aiohttp.ClientSession, new_user: NewUser
) -> None:
    users = [await new_user("Ada"), await new_user("Bob")]
    turns = await asyncio.gather(*(_talk(user) for user in users))
    for user, own in zip(users, turns, strict=True):
        calls = sum(turn["usage"]["model_calls"] for turn in own)
        rows = await _rows_once_written(stack, http, user, calls)
        usage = await user.get("/user/usage")
        tokens = sum(turn["usage"]["total_tokens"] for turn in own)
        cost = sum((Decimal(turn["cost"]) for turn in own), Decimal(0))
        assert sum(row["total_tokens"] for row in rows) == tokens == usage["total"]["tokens"]
        assert abs(sum((Decimal(str(row["spend"])) for row in rows), Decimal(0)) - cost) < Decimal("1e-12")
        assert Decimal(usage["total"]["cost"]) == cost.quantize(Decimal("0.000001"))
        assert usage["total"]["messages"] == 2 * len(own)
        assert {row["user"] for row in rows} == {user.id}


async def _talk(user: ChatUser) -> list[dict[str, Any]]:
    remember = 'CALL memory_insert {"label": "human", "new_string": "Sails", "insert_line": -1}'
    return [await user.say(text) for text in ("ECHO one", remember, "SLOW 5 0.01")]


async def _rows_once_written(
    stack: RunningStack, http: aiohttp.ClientSession, user: ChatUser, expected: int
) -> list[dict[str, Any]]:
    """LiteLLM writes its rows in batches, seconds after the call."""
    async with asyncio.timeout(PATIENCE):
        while len(rows := await spend_rows(stack, http, user)) < expected:
            await asyncio.sleep(0.5)
    assert len(rows) == expected
    return rows
