"""A client that asks for `/ready` and for a page of history ten times a second, until its input ends.

Prints how long each answer took, in milliseconds: a process of its own, so that a benchmark's load does not delay it.
"""

import asyncio
import json
import os
import sys
import time
from contextlib import suppress

import aiohttp
import click

PAUSE_SECONDS = 0.1


async def ask(port: int, token: str) -> dict[str, object]:
    """Ask until standard input ends. Returns the times of both kinds of requests, and how many were refused."""
    times: dict[str, list[float]] = {"ready": [], "rest": []}
    paths = {"ready": "/ready", "rest": "/api/v1/chat/history?limit=20"}
    refused = 0
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
        while True:
            for kind, path in paths.items():
                began = time.perf_counter()
                async with http.get(f"http://127.0.0.1:{port}{path}") as response:
                    await response.read()
                    refused += response.status != 200
                times[kind].append((time.perf_counter() - began) * 1000)
            if (await asyncio.wait([ended], timeout=PAUSE_SECONDS))[0]:
                return {**times, "refused": refused}


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--token", required=True)
def main(port: int, token: str) -> None:
    """Ask until standard input ends."""
    with suppress(OSError):
        os.nice(-10)  # where it may, it goes before the benchmark's clients, which use up a core
    print(json.dumps(asyncio.run(ask(port, token))))


if __name__ == "__main__":
    main()
