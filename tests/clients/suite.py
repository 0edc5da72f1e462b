"""What is the same for the clients of all languages: the conformance suite, served, and a run with servers that are
killed."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import aiohttp
from aiohttp import web

from clients.conformance.server import RUNS, create_app
from server.api.stream_schemas import SOCKET
from tests.clients.processes import OnLine
from tests.conftest import NewServer
from tests.stack.chat_client import register

UNKNOWN_ON_PURPOSE = {"weather.changed", "notice", "reconnect"}
MESSAGES = 16
KILLED_AT = (3, 6, 11)
"""The messages in whose replies the server is killed: an odd one is of one device, an even one of the other."""


class Package(Protocol):
    """A client's folder, whose scripts can be run."""

    async def script(
        self, name: str, *arguments: str, env: Mapping[str, str] | None = None, each_line: OnLine | None = None
    ) -> str:
        """The output, of a script that must succeed. `each_line` is awaited with each line as it comes."""
        ...


@asynccontextmanager
async def conformance() -> AsyncIterator[str]:
    """The address of the suite. In the end all frames that it has sent must be such as this server may send."""
    app = create_app()
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
    for frame in (frame for run in app[RUNS].values() for frame in run.frames):
        if frame["type"] not in UNKNOWN_ON_PURPOSE and "surprise" not in frame:
            SOCKET.validate_json(json.dumps(frame))


def check_passed(output: str, count: int | None = None) -> None:
    """The last line of a driver; `count`: how many scenarios it was to play, if not all."""
    assert re.search(rf"^{count or '[1-9][0-9]*'} passed, 0 failed$", output, re.MULTILINE), output


async def survives_kills(package: Package, new_server: NewServer, http: aiohttp.ClientSession) -> None:
    """Have two devices of a user talk through lines that are cut to a server that is killed, and compare what they show
    with the history."""
    server = await new_server(REDIS_URL=None)
    ada = await register(http, server.url)

    async def kill(line: str) -> None:
        if line.strip() in {f"accepted {number}" for number in KILLED_AT}:
            server.kill()
            server.start()

    env = {"CHAT_URL": server.url, "CHAT_TOKEN": ada.access_token}
    output = await package.script("talk", str(MESSAGES), env=env, each_line=kill)
    assert output.count("equal") == 2, output
