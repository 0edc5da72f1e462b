"""Shared by the tests of a failing Supabase: the paths of its functions, and the problem that users get."""

import asyncio
from typing import Final

from tests.stack.chat_client import TIMEOUT, ChatUser, Json

UNAVAILABLE: Final = "supabase_unavailable"


def rpc(function: str) -> str:
    return f"^/rest/v1/rpc/{function}$"


async def until_it_works(ada: ChatUser, body: Json) -> Json:
    """Send until it is accepted, as a client that retries does. Returns the completed turn."""
    async with asyncio.timeout(2 * TIMEOUT):
        while True:
            status, turn = await ada.call("POST", "/chat/message", body)
            if status in (200, 202):
                break
            assert_unavailable(turn, status)
            await asyncio.sleep(0.3)
    turn = await ada.ended(turn["id"])
    assert turn["status"] == "completed", turn
    return turn


def assert_unavailable(problem: Json, status: int) -> None:
    assert (status, problem["code"], problem["retryable"]) == (503, UNAVAILABLE, True), problem
    assert problem["retry_after"] > 0
