"""The JavaScript client on the real platform, with servers that are killed while it talks."""

import aiohttp

from tests.clients.js_package import JsPackage
from tests.conftest import NewServer
from tests.stack.chat_client import register

MESSAGES = 16
KILLED_AT = (3, 6, 11)
"""The messages in whose replies the server is killed: an odd one is of one device, an even one of the other."""


async def test_it_shows_what_the_history_has_after_kills_of_the_server_and_cuts_of_its_connections(
    js: JsPackage, new_server: NewServer, http: aiohttp.ClientSession
) -> None:
    server = await new_server(REDIS_URL=None)
    ada = await register(http, server.url)

    async def kill(line: str) -> None:
        if line.strip() in {f"accepted {number}" for number in KILLED_AT}:
            server.kill()
            server.start()

    env = {"CHAT_URL": server.url, "CHAT_TOKEN": ada.access_token}
    output = await js.script("talk", str(MESSAGES), env=env, each_line=kill)
    assert output.count("equal") == 2, output
