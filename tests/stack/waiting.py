"""Waiting for other processes, by polling."""

import asyncio
from typing import Any

import aiohttp

from tests.stack.chat_client import TIMEOUT, ChatUser
from tests.stack.running_stack import RunningStack


async def ready_again(stack: RunningStack, http: aiohttp.ClientSession, service: str, old_pid: int) -> None:
    """Return when the supervisor has replaced `old_pid` and the API is ready."""
    async with asyncio.timeout(2 * TIMEOUT):
        while stack.status()[service]["pid"] in (None, old_pid):
            await asyncio.sleep(0.3)
        while True:
            try:
                async with http.get(f"{stack.url}/ready") as response:
                    if (await response.json())["status"] == "ready":
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.3)


async def ended(user: ChatUser, turn_id: str) -> dict[str, Any]:
    """The turn, once it has ended."""
    async with asyncio.timeout(2 * TIMEOUT):
        while (turn := await user.get(f"/chat/turns/{turn_id}"))["status"] in ("queued", "running"):
            await asyncio.sleep(0.3)
    return dict(turn)
