"""Values of a server's /metrics."""

import asyncio

import aiohttp

from tests.stack.chat_client import TIMEOUT
from tests.stack.own_server import ServerProcess


async def metric(http: aiohttp.ClientSession, server: ServerProcess, name: str) -> float:
    """One metric without labels."""
    async with http.get(f"{server.url}/metrics") as response:
        assert response.status == 200
        lines = (await response.text()).splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


async def until_metric(http: aiohttp.ClientSession, server: ServerProcess, name: str, value: float) -> None:
    """Return when the metric has this value."""
    async with asyncio.timeout(2 * TIMEOUT):
        while await metric(http, server, name) != value:
            await asyncio.sleep(0.2)
