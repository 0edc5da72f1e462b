"""The two servers that the tests of a file share."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.conftest import NewServer, report_logs
from tests.faults.two_servers import TwoServers, start_two, two_servers
from tests.stack.own_redis import OwnRedis
from tests.stack.own_server import ServerProcess
from tests.stack.running_stack import RunningStack


@pytest.fixture(scope="module")
async def pair(new_shared_server: NewServer, redis_server: OwnRedis) -> tuple[ServerProcess, ServerProcess]:
    """Two servers around one Redis. A file that needs other settings has a fixture of this name."""
    return await start_two(new_shared_server, REDIS_URL=redis_server.url)


@pytest.fixture
async def both(
    stack: RunningStack,
    http: aiohttp.ClientSession,
    pair: tuple[ServerProcess, ServerProcess],
    request: pytest.FixtureRequest,
) -> AsyncIterator[TwoServers]:
    """The pair, both running."""
    async with two_servers(stack, http, pair) as servers:
        yield servers
    report_logs(request, *pair)
