"""A Supabase of the tests' own beside the stack's: its programs and its PostgreSQL, but another database.

The platform's server polls the stack's database for unowned turns and unfinished accounts, and would adopt those that
store tests leave open there.
"""

import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from server.adapters.supabase.migration_files import project_migrations
from server.adapters.supabase.migrations import apply_migrations
from server.stack.environments import Node
from server.stack.layout import Layout
from server.stack.supabase_lite import LOGIN, SOURCES, anon_key, service_key
from tests.stack.running_stack import RunningStack, free_port

READY_SECONDS = 180
BCRYPT_COST = "4"
"""The least: passwords of tests need no protection, and at Supabase's 10 each costs some 50 ms of processor time."""


@contextmanager
def own_supabase(
    stack: RunningStack, database: str, *, confirm_email: bool = False, migrations: Traversable | None = None
) -> Iterator[dict[str, str]]:
    """A fresh project with this release's schema, or that of `migrations`. Yields its variables, as in `stack.env`."""
    database = f"{database}_{os.getpid()}"  # several test runs may share a stack
    layout = Layout(stack.data_dir, api_port=0)
    owner_url = _with_database(stack.env["SUPABASE_DB_URL"], database)
    with tempfile.TemporaryDirectory() as home:
        environment = _environment(layout, owner_url, Path(home), confirm_email=confirm_email)
        with _database(stack.env["SUPABASE_DB_URL"], database):
            _prepare(layout, environment)
            apply_migrations(owner_url, migrations or project_migrations())
            with _running(layout, environment) as url:
                yield _variables(layout, url, owner_url, environment)


@contextmanager
def once_more(stack: RunningStack, project: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The same project at another address, which accepts the same tokens and has the current schema.

    Supabase Lite reads the schema once, when it starts; PostgREST reads it again after each change.
    """
    layout, owner_url = Layout(stack.data_dir, api_port=0), project["SUPABASE_DB_URL"]
    with tempfile.TemporaryDirectory() as home:
        environment = _environment(layout, owner_url, Path(home))
        environment["LITE_SIGNING_KEY_FILE"] = project["SIGNING_KEY_FILE"]
        with _running(layout, environment) as url:
            issuer = f"{project['SUPABASE_URL']}/auth/v1"
            yield _variables(layout, url, owner_url, environment) | {"SUPABASE_JWT_ISSUER": issuer}


def _environment(layout: Layout, owner_url: str, home: Path, *, confirm_email: bool = False) -> dict[str, str]:
    """The configuration that `serve.mjs` reads."""
    database = urlsplit(owner_url).path.removeprefix("/")
    return layout.base_environment() | {
        "HOME": str(home),
        "DO_NOT_TRACK": "1",
        "LITE_TELEMETRY": "0",
        "LITE_DATABASE_URL": _with_database(owner_url, database, LOGIN, layout.secret("postgres_supabase_lite")),
        "LITE_PORT": str(free_port()),
        "LITE_SITE_URL": "http://127.0.0.1",
        "LITE_JWT_SECRET": layout.secret("supabase_jwt"),
        "LITE_JWT_EXPIRY": "3600",
        "LITE_AUTH_BCRYPT_COST": BCRYPT_COST,
        "NODE_COMPILE_CACHE": str(layout.folder("supabase") / "compile-cache"),
        "LITE_CONFIRM_EMAIL": str(confirm_email).lower(),
        "LITE_PUBLISHABLE_KEY": anon_key(layout),
        "LITE_SECRET_KEY": service_key(layout),
        "LITE_MAIL_FILE": str(home / "mails.jsonl"),
        "LITE_SIGNING_KEY_FILE": str(home / "signing-key.json"),
    }


def _variables(layout: Layout, url: str, owner_url: str, environment: Mapping[str, str]) -> dict[str, str]:
    return {
        "SUPABASE_URL": url,
        "SUPABASE_ANON_KEY": anon_key(layout),
        "SUPABASE_SERVICE_KEY": service_key(layout),
        "SUPABASE_DB_URL": owner_url,
        "MAIL_FILE": environment["LITE_MAIL_FILE"],
        "SIGNING_KEY_FILE": environment["LITE_SIGNING_KEY_FILE"],
        "LOG_FILE": str(_log_file(environment)),
    }


def _log_file(environment: Mapping[str, str]) -> Path:
    return Path(environment["HOME"]) / "supabase.log"


def _with_database(url: str, database: str, user: str | None = None, password: str | None = None) -> str:
    """The same server's address of another database, as another user where one is named."""
    parts = urlsplit(url)
    login = f"{user}:{password}" if user else f"{parts.username}:{parts.password}"
    return f"postgresql://{login}@{parts.hostname}:{parts.port}/{database}"


@contextmanager
def _database(url: str, name: str) -> Iterator[None]:
    drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
    grant = sql.SQL("grant create on database {} to {}").format(sql.Identifier(name), sql.Identifier(LOGIN))
    with psycopg.connect(url, autocommit=True) as cluster:
        cluster.execute(drop)
        cluster.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        cluster.execute(grant)
    with psycopg.connect(_with_database(url, name), autocommit=True) as connection:
        connection.execute((SOURCES / "roles.sql").read_bytes())
    try:
        yield
    finally:
        with psycopg.connect(url, autocommit=True) as cluster:  # a new one: tests kill PostgreSQL in between
            cluster.execute(drop)


def _serve(layout: Layout) -> list[str]:
    return [str(Node(layout).program), "serve.mjs"]


def _prepare(layout: Layout, environment: Mapping[str, str]) -> None:
    subprocess.run(
        [*_serve(layout), "--prepare"],
        cwd=layout.environment("supabase"),
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )


@contextmanager
def _running(layout: Layout, environment: Mapping[str, str]) -> Iterator[str]:
    """A Supabase Lite that is ready. Yields its URL."""
    url = f"http://127.0.0.1:{environment['LITE_PORT']}"
    with (
        _log_file(environment).open("ab") as log,
        subprocess.Popen(
            _serve(layout),
            cwd=layout.environment("supabase"),
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            _wait_until_healthy(process, url, environment["LITE_PUBLISHABLE_KEY"])
            yield url
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_healthy(process: "subprocess.Popen[bytes]", url: str, key: str) -> None:
    request = urllib.request.Request(f"{url}/auth/v1/health", headers={"apikey": key})
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"Supabase Lite did not become ready at {url} (exit code {process.poll()})")
