"""Letta 0.16.8, the last release of the REST server: in its own environment, on PostgreSQL and Redis.

Facts about its settings come from its source and from tests with it; docs/specification.md explains the choice of the
release."""

from pathlib import Path

from server.stack.environments import PythonEnvironment
from server.stack.health import responds
from server.stack.layout import LOOPBACK, Layout
from server.stack.postgres import database_url, ensure_database
from server.stack.service import Command, Progress, Service

REFUSING_PROXY = "http://127.0.0.1:9"
"""A proxy that refuses connections: Letta downloads NLTK data at each start, which could hang without internet."""

PATCH_SWITCHES = "LETTA_PATCH_"
"""How the names of variables begin that turn patches off (docs/deploy.md)."""


class Letta(Service):
    """The agent server of the local stack."""

    name = "letta"
    depends_on = ("postgres", "redis")

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._environment = PythonEnvironment(layout, "letta")

    @property
    def installed(self) -> bool:
        """Whether its environment is complete."""
        return self._environment.installed

    async def install(self, progress: Progress) -> None:
        """Install some 250 packages, 840 MB."""
        await self._environment.install(progress)

    async def prepare(self) -> None:
        """Create its database."""
        self._home()
        await ensure_database(self.layout, self.name, extensions=("vector",))

    def command(self) -> Command:
        """uvicorn instead of `letta server`, since it limits how long a stop waits for open streams."""
        argv = self._environment.uvicorn("letta_server.py", "letta.server.rest_api.app:app", self.port, drain_seconds=3)
        return Command(argv, self._settings(), self._home(), stop_seconds=5)

    async def healthy(self) -> bool:
        """Whether its health check returns 200."""
        return await responds(f"{letta_url(self.layout)}/v1/health/")

    def _home(self) -> Path:
        return self.layout.folder("letta")

    def _settings(self) -> dict[str, str]:
        """The environment, without model keys: each call uses the user's key, stored in the organization's"""
        home = self._home()
        switches = {name: value for name, value in self.layout.environ.items() if name.startswith(PATCH_SWITCHES)}
        proxies = {name: REFUSING_PROXY for proxy in ("http_proxy", "https_proxy") for name in (proxy, proxy.upper())}
        return {
            **self.layout.base_environment(),
            **proxies,
            **switches,
            "HOME": str(home),
            "PYTHONPATH": str(patches_folder()),
            "LETTA_DIR": str(home / ".letta"),
            "LETTA_PG_URI": database_url(self.layout, self.name) + "?sslmode=disable",
            "LETTA_DISABLE_SQLALCHEMY_POOLING": "false",  # the default opens a connection for each query
            "LETTA_PG_POOL_SIZE": "20",
            "LETTA_PG_MAX_OVERFLOW": "20",
            "LETTA_REDIS_HOST": LOOPBACK,
            "LETTA_REDIS_PORT": str(self.layout.port("redis")),
            "LETTA_SERVER_SECURE": "true",
            "LETTA_SERVER_PASSWORD": letta_token(self.layout),
            "LETTA_ENCRYPTION_KEY": self.layout.secret("letta_encryption"),
            "LETTA_NO_DEFAULT_ACTOR": "true",  # a request without a user is refused instead of acting as a shared one
            "LETTA_KEEPALIVE_INTERVAL": "10",
            "LETTA_TRACK_PROVIDER_TRACE": "false",
            "LETTA_DISABLE_TRACING": "true",
            "DO_NOT_TRACK": "1",
        }


def patches_folder() -> Path:
    """The code that is loaded into Letta's process: in a wheel beside this file, in a checkout under `deploy/letta`."""
    packed = Path(__file__).with_name("letta_patches")
    return packed if packed.is_dir() else Path(__file__).parents[2] / "deploy" / "letta" / "patches"


def letta_url(layout: Layout) -> str:
    """Letta's URL."""
    return f"http://{LOOPBACK}:{layout.port('letta')}"


def letta_token(layout: Layout) -> str:
    """Letta's password, for servers only."""
    return layout.secret("letta_password")
