"""The servers that are compared: ours, and a minimal relay with aiohttp.

Both receive a text frame on a WebSocket, post to the same upstream, and forward its stream.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator

import aiohttp
import click
import orjson
import structlog
import uvloop
from aiohttp import web

from server.cli.serve import tune_garbage_collector
from server.http.http_server import BACKLOG, serving, within_open_files
from server.protocol.limits import Limits
from tests.bench.platform_app import platform_app

MAX_CONNECTIONS = 12_000


def bare_app(upstream: str) -> web.Application:
    """One parse and one dump a chunk, and nothing else."""

    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            body = orjson.loads(message.data)
            async with client[0].post(f"{upstream}/relay", json=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        await socket.send_str(orjson.dumps(orjson.loads(line[6:])).decode())
        return socket

    async def collaborators(app: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            client.append(session)
            yield

    client: list[aiohttp.ClientSession] = []
    app = web.Application()
    app.router.add_get("/api/v1/chat/stream", handle)
    app.cleanup_ctx.append(collaborators)
    return app


async def _serve_bare(upstream: str, port: int) -> None:
    runner = web.AppRunner(bare_app(upstream), access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=BACKLOG).start()
    tune_garbage_collector()
    await asyncio.Event().wait()


async def _serve_ours(app: web.Application, port: int) -> None:
    """As `chat serve` does."""
    max_connections = within_open_files(MAX_CONNECTIONS)
    async with serving(app, lambda: socket.create_server(("127.0.0.1", port), backlog=BACKLOG), max_connections):
        tune_garbage_collector()
        await asyncio.Event().wait()


@click.command()
@click.argument("kind", type=click.Choice(["ours", "follower", "bare"]))
@click.option("--port", type=int, required=True)
@click.option("--upstream", required=True)
@click.option("--running-turns", type=int, default=2000)
@click.option("--redis")
@click.option("--deployment", default=f"bench-{os.getpid()}", help="Which servers share their sessions.")
def main(kind: str, port: int, upstream: str, running_turns: int, redis: str | None, deployment: str) -> None:
    """Serve one of them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if kind == "bare":
        uvloop.run(_serve_bare(upstream, port))
    else:
        limits = Limits(running_turns=running_turns)
        uvloop.run(_serve_ours(platform_app(upstream, limits, redis, deployment, follows=kind == "follower"), port))


if __name__ == "__main__":
    main()
