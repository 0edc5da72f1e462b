"""Waiting for other processes, by polling."""

import asyncio

import aiohttp

from tests.stack.chat_client import TIMEOUT
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


async def serving_again(stack: RunningStack, http: aiohttp.ClientSession) -> None:
    """Return when sign-in works again: `/ready` may show a state of two seconds ago."""
    unknown = {"email": "nobody@example.com", "password": "Passw0rd-2026"}
    async with asyncio.timeout(2 * TIMEOUT):
        while True:
            async with http.post(f"{stack.url}/api/v1/auth/login", json=unknown) as response:
                if response.status == 401:
                    return
                assert response.status == 503
            await asyncio.sleep(0.3)
