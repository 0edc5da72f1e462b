"""Fixtures of the real services: one local stack per run, with the scripted model behind it.

Its software and data are in `.chat-test` (or CHAT_TEST_DIR), where the next run reuses them. A stack that already runs
there is reused.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import aiohttp
import pytest
import structlog
from playwright.async_api import Browser, Page, expect

from tests.browser.chromium import chromium
from tests.browser.site import serve_site
from tests.stack.forked import end_fork_server
from tests.stack.own_redis import OwnRedis, own_redis
from tests.stack.own_server import ServerProcess, server_environment
from tests.stack.own_supabase import BCRYPT_COST, own_supabase
from tests.stack.patches import ALL, applied_patches, switches
from tests.stack.running_stack import RunningStack, free_port, read_env

ROOT = Path(__file__).parent.parent
START_SECONDS = 900
STOP_SECONDS = 120
BROWSER_SECONDS = 120
"""Limit of a wait in a page; generous, since the machines are slow and shared."""

expect.set_options(timeout=BROWSER_SECONDS * 1000)


def pytest_sessionfinish() -> None:
    """In each worker."""
    end_fork_server()


class NewServer(Protocol):
    """Starts an API server and waits until it is ready.

    Variables that are named replace those of `server_env`; None removes one. `name` names its log.
    """

    def __call__(self, name: str = "server", **variables: str | None) -> Awaitable[ServerProcess]: ...


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """The whole local stack, started once."""
    with shared_stack() as running:
        yield running


@pytest.fixture(scope="session")
def stack_env(stack: RunningStack) -> dict[str, str]:
    """The content of stack.env: the URL and key of every local service."""
    return stack.env


@pytest.fixture(scope="session")
def supabase_env(stack: RunningStack) -> Iterator[dict[str, str]]:
    """The variables of a Supabase that no platform server uses: for tests of the stores and of the schema."""
    with own_supabase(stack, "store_tests") as env:
        yield env


@pytest.fixture(scope="session")
def redis_server(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRedis]:
    """A Redis of the tests' own, to be killed, frozen and filled."""
    with own_redis(stack, tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def server_env(stack: RunningStack) -> Iterator[dict[str, str]]:
    """The variables of an API server on the stack's Letta, LiteLLM and Redis and on a Supabase of the tests' own."""
    with own_supabase(stack, "server_tests") as supabase:
        yield server_environment(stack, supabase)


@pytest.fixture
async def new_server(
    server_env: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[NewServer]:
    """API servers that run until the test ends. A test that fails shows the ends of their logs."""
    with _own_servers(server_env, tmp_path) as (make, servers):
        yield make
    report_logs(request, *servers)


@pytest.fixture(scope="module")
async def new_shared_server(
    server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[NewServer]:
    """API servers that run until the last test of the file has ended."""
    with _own_servers(server_env, tmp_path_factory.mktemp("servers")) as (make, _):
        yield make


def report_logs(request: pytest.FixtureRequest, *servers: ServerProcess) -> None:
    """Show the ends of these servers' logs if the test of this request fails."""
    for server in servers:
        request.node.add_report_section("teardown", f"log of {server.log.stem}", server.log_tail())


@contextmanager
def _own_servers(env: dict[str, str], folder: Path) -> Iterator[tuple[NewServer, list[ServerProcess]]]:
    servers: list[ServerProcess] = []

    async def make(name: str = "server", **variables: str | None) -> ServerProcess:
        settings = {key: value for key, value in (env | variables).items() if value is not None}
        server = ServerProcess(settings, folder / f"{name}.log")
        assert not server.log.exists(), f"there is a server named {name} already"
        servers.append(running.enter_context(server))
        await server.ready()
        return server

    with ExitStack() as running:
        yield make, servers


def log_plainly() -> None:
    """Log as structlog does by default, but tracebacks without the variables of each frame: formatting those took half
    of the processor time of `unit/`."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ]
    )


log_plainly()


@pytest.fixture
def logging_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For tests in which a command configures the process's logging: no logger caches that configuration."""
    root, configure = logging.getLogger(), structlog.configure
    handlers, level = root.handlers[:], root.level
    uncached = {"cache_logger_on_first_use": False}
    monkeypatch.setattr(structlog, "configure", lambda **options: configure(**(options | uncached)))
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    log_plainly()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client without limits of its own."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=180)) as session:
        yield session


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A real browser, started once."""
    async with chromium() as running:
        yield running


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """An empty tab with cookies and storage of its own."""
    context = await browser.new_context()
    context.set_default_timeout(BROWSER_SECONDS * 1000)
    try:
        yield await context.new_page()
    finally:
        await context.close()


@pytest.fixture(scope="session")
async def web_app() -> AsyncIterator[str]:
    """The origin of a site with empty pages, at `http://localhost:<port>`."""
    async with serve_site() as origin:
        yield origin


@contextmanager
def shared_stack() -> Iterator[RunningStack]:
    """The stack that runs in `.chat-test` (or CHAT_TEST_DIR), else one that runs until the end of the block."""
    folder = Path(os.environ.get("CHAT_TEST_DIR", ROOT / ".chat-test")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data_dir, ports_file = folder / "stack", folder / "ports.json"
    with ExitStack() as running:
        if not (ports_file.exists() and _is_up(data_dir)):
            model_port, api_port = free_port(), free_port()
            running.enter_context(_scripted_model(model_port, folder))
            ports_file.write_text(json.dumps({"model": model_port, "api": api_port}))
            running.enter_context(_local_stack(data_dir, api_port, model_port))
        ports = json.loads(ports_file.read_text())
        yield RunningStack(
            data_dir=data_dir,
            url=f"http://127.0.0.1:{ports['api']}",
            model_url=f"http://127.0.0.1:{ports['model']}",
            env=read_env(data_dir / "stack.env"),
        )


def _is_up(data_dir: Path) -> bool:
    """Whether all services run; one that a test has killed may be on its way back."""
    until = time.monotonic() + STOP_SECONDS
    while (states := _states(data_dir)) - {"stopped"} and time.monotonic() < until:
        if states == {"running"}:
            return True
        time.sleep(0.5)
    return False


def _states(data_dir: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "server", "status", "--json", "--data-dir", str(data_dir)],
        capture_output=True,
        check=False,
        cwd=ROOT,
    )
    return {row["state"] for row in json.loads(done.stdout or b"[]")}


@contextmanager
def _scripted_model(port: int, folder: Path) -> Iterator[None]:
    with (folder / "scripted-model.log").open("ab") as log:
        model = subprocess.Popen(
            [sys.executable, "-m", "tests.scripted_model", "--port", str(port)], cwd=ROOT, stdout=log, stderr=log
        )
        try:
            _wait_until_answered(f"http://127.0.0.1:{port}/v1/models", model, START_SECONDS)
            yield
        finally:
            model.terminate()
            model.wait(STOP_SECONDS)


@contextmanager
def _local_stack(data_dir: Path, api_port: int, model_port: int) -> Iterator[None]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= switches(ALL - applied_patches()) | {
        "OPENAI_API_KEY": "sk-scripted",
        "STACK_BCRYPT_COST": BCRYPT_COST,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{model_port}/v1",
        "AUTH_REQUESTS_PER_MINUTE": "0",
        "SIGN_INS_PER_MINUTE": "0",
        "NEW_ACCOUNTS_PER_MINUTE": "0",
        "REQUESTS_PER_MINUTE": "0",
        "MEMORY_REQUESTS_PER_MINUTE": "0",
        "EXPORTS_PER_MINUTE": "0",
        "MESSAGES_PER_MINUTE": "0",
    }
    command = [sys.executable, "-m", "server", "up", "--data-dir", str(data_dir), "--port", str(api_port)]
    up = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        _wait_until_answered(f"http://127.0.0.1:{api_port}/ready", up, START_SECONDS)
        yield
    finally:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            up.kill()
            raise


def _wait_until_answered(url: str, process: "subprocess.Popen[bytes]", seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            pytest.exit(f"{process.args!r} ended with {process.returncode}", returncode=3)
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.exit(f"{url} did not answer within {seconds:.0f} s", returncode=3)
