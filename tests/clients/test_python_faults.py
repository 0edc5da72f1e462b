"""The Python client on the real platform, with servers that are killed while it talks."""

import aiohttp

from tests.clients.python_package import PythonPackage
from tests.clients.suite import survives_kills
from tests.conftest import NewServer


async def test_it_shows_what_the_history_has_after_kills_of_the_server_and_cuts_of_its_connections(
    python: PythonPackage, new_server: NewServer, http: aiohttp.ClientSession
) -> None:
    await survives_kills(python, new_server, http)
