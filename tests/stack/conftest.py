"""Users of the real platform, and servers and projects of a test's own."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace

import aiohttp
import pytest

from tests.conftest import NewServer
from tests.stack.chat_client import ChatUser, register
from tests.stack.own_server import ServerProcess, server_environment
from tests.stack.own_supabase import own_supabase
from tests.stack.running_stack import RunningStack

NewUser = Callable[..., Awaitable[ChatUser]]


@pytest.fixture
async def new_user(stack: RunningStack, http: aiohttp.ClientSession) -> NewUser:
    """Registers a user with an e-mail address of its own; `name` is optional."""

    async def make(name: str = "Ada") -> ChatUser:
        return await register(http, stack.url, name)

    return make


@pytest.fixture
async def ada(new_user: NewUser) -> ChatUser:
    """A fresh user."""
    return await new_user("Ada")


@pytest.fixture
async def own_server(new_server: NewServer) -> ServerProcess:
    """An API server of this test's own, to be killed and restarted while other tests use the stack's: without
    Redis, like that one."""
    return await new_server(REDIS_URL=None)


@pytest.fixture
def own_stack(stack: RunningStack, own_server: ServerProcess, server_env: dict[str, str]) -> RunningStack:
    """The stack, with that server and its Supabase in place of the stack's."""
    return replace(stack, url=own_server.url, env=server_env)


@pytest.fixture
async def bob(own_stack: RunningStack, http: aiohttp.ClientSession) -> ChatUser:
    """A fresh user of that server."""
    return await register(http, own_stack.url, "Bob")


@pytest.fixture(scope="module")
def confirming(stack: RunningStack) -> Iterator[dict[str, str]]:
    """A Supabase project that requires confirmed addresses."""
    with own_supabase(stack, "confirming_tests", confirm_email=True) as env:
        yield env


@pytest.fixture(scope="module")
async def confirming_server(
    stack: RunningStack, confirming: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """The address of a server on that project."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with ServerProcess(server_environment(stack, confirming), log) as server:
        await server.ready()
        yield server.url
