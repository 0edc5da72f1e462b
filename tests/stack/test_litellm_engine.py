"""The stand-in for Prisma's query engine, on the stack's PostgreSQL and driven by LiteLLM's own database client."""

import ast
import json
import os
import select
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from server.stack.litellm_migrations import apply_litellm_migrations, read_migrations
from tests.stack.running_stack import RunningStack

CHECKS = Path(__file__).with_name("engine_checks.py")
NAMES = [
    node.name
    for node in ast.parse(CHECKS.read_text()).body
    if isinstance(node, ast.AsyncFunctionDef) and node.name[0] != "_" and len(node.args.args) == 2
]
DATABASE = "litellm_engine_test"


@dataclass(frozen=True, slots=True)
class Engine:
    """LiteLLM's interpreter with the engine's environment, on a database of this test's own."""

    python: Path
    env: dict[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        argv = [str(self.python), str(CHECKS), *arguments]
        return subprocess.Popen(argv, env=self.env, text=True, stdout=subprocess.PIPE, cwd="/")


@pytest.fixture(scope="module")
async def engine(stack: RunningStack) -> AsyncIterator[Engine]:
    """A migrated scratch database in the stack's cluster."""
    installed = stack.data_dir / "env"
    owner = stack.env["SUPABASE_DB_URL"]
    url = urlunsplit(urlsplit(owner)._replace(path=f"/{DATABASE}"))
    python = installed / "litellm" / "bin" / "python"
    (migrations,) = (installed / "litellm").glob("lib/*/site-packages/litellm_proxy_extras/migrations")
    async with await psycopg.AsyncConnection.connect(owner, autocommit=True) as connection:
        await connection.execute(f"drop database if exists {DATABASE} with (force)".encode())
        await connection.execute(f"create database {DATABASE}".encode())
        assert await apply_litellm_migrations(url, migrations) == [m.name for m in read_migrations(migrations)]
        assert await apply_litellm_migrations(url, migrations) == []
        program = installed / "litellm-engine" / "query-engine"
        env = {"DATABASE_URL": url, "PRISMA_QUERY_ENGINE_BINARY": str(program), "PATH": os.environ["PATH"]}
        yield Engine(python, env)
        await connection.execute(f"drop database {DATABASE} with (force)".encode())


@pytest.fixture(scope="module")
def results(engine: Engine) -> dict[str, str | None]:
    """The results of all checks, from one run."""
    output, _ = engine.start("run").communicate(timeout=360)
    return dict(json.loads(output.splitlines()[-1]))


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_does_what_litellms_client_expects(results: dict[str, str | None], name: str) -> None:
    assert results[name] is None, results[name]


def test_every_check_ran(results: dict[str, str | None]) -> None:
    assert sorted(results) == sorted(NAMES)


def test_the_engine_dies_with_the_process_that_started_it(engine: Engine) -> None:
    with engine.start("hold") as client:
        try:
            assert client.stdout is not None
            pid = next(int(line) for line in client.stdout if line.strip().isdigit())
            engine_process = os.pidfd_open(pid)
        finally:
            client.kill()
    try:
        ended, _, _ = select.select([engine_process], [], [], 120)
    finally:
        os.close(engine_process)

    assert ended
