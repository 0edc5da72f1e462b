"""Servers of a test's own on the running stack's services. A test that fails shows the ends of their logs."""

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.faults.servers import ServerProcess, server_environment
from tests.stack.own_supabase import own_supabase
from tests.stack.running_stack import RunningStack


class NewServer(Protocol):
    """Starts a server and waits until it is ready.

    Variables that are named replace those of `faults_env`; None takes one away. `name` names its log.
    """

    def __call__(self, name: str = "server", **variables: str | None) -> Awaitable[ServerProcess]: ...


@pytest.fixture(scope="session")
def faults_env(stack: RunningStack) -> Iterator[dict[str, str]]:
    """The variables of a server on the stack's Letta, LiteLLM and Redis and on a Supabase of these tests' own."""
    with own_supabase(stack, "fault_tests") as supabase:
        yield server_environment(stack, supabase)


@pytest.fixture
async def new_server(
    faults_env: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[NewServer]:
    """Servers that run until the test ends."""
    servers: dict[str, ServerProcess] = {}

    async def make(name: str = "server", **variables: str | None) -> ServerProcess:
        assert name not in servers, f"this test has a server named {name} already"
        env = {key: value for key, value in (faults_env | variables).items() if value is not None}
        servers[name] = running.enter_context(ServerProcess(env, tmp_path / f"{name}.log"))
        await servers[name].ready()
        return servers[name]

    with ExitStack() as running:
        yield make
    for name, server in servers.items():
        request.node.add_report_section("teardown", f"log of {name}", server.log_tail())
