"""LiteLLM 1.106 with its database: virtual keys, budgets and spend, in front of the agents' model.

It runs in its own process and environment and is never imported here: two of its releases on PyPI (1.82.7 and 1.82.8)
were malware. Facts about its settings come from its source and from tests with it."""

import hashlib
import json
import re
import shlex
from pathlib import Path

import psycopg

from server.stack import processes
from server.stack.environments import Node, NodePackages, PythonEnvironment
from server.stack.errors import StackError
from server.stack.health import responds
from server.stack.layout import LOOPBACK, Layout, write_private
from server.stack.litellm_config import DEFAULT_MODEL, MODEL_KEY, MODEL_URL, Upstream, configuration
from server.stack.litellm_migrations import apply_litellm_migrations
from server.stack.model import demo_model_url
from server.stack.postgres import database_url, ensure_database
from server.stack.service import Command, Progress, Service

ENGINE_SOURCES = Path(__file__).parent / "litellm_engine"
OPENAI_URL = "https://api.openai.com/v1"
_NESTED_INCLUDE = re.compile(r"class (FindMany)?(?P<included>\w+?)(Include|Args)From(?P<by>\w+)\(TypedDict")
DATABASE_OPTIONS = "?connection_limit=10&pool_timeout=60"


class LiteLLM(Service):
    """The model gateway of the local stack, which charges each call to its key."""

    name = "litellm"
    depends_on = ("postgres",)

    def __init__(self, layout: Layout, node: Node) -> None:
        super().__init__(layout)
        self._environment = PythonEnvironment(layout, "litellm")
        self._engine = NodePackages(node, "litellm-engine", ENGINE_SOURCES)
        self._client_stamp = self._environment.folder / ".client-generated"

    @property
    def installed(self) -> bool:
        """Whether LiteLLM, the engine and the generated database client are installed."""
        return self._environment.installed and self._engine.installed and self._client_generated()

    async def install(self, progress: Progress) -> None:
        """Install LiteLLM from PyPI and its database engine from npm, and generate the Python client for both."""
        await self._engine.install(progress)
        self._write_engine_program()
        await self._environment.install(progress)
        if not self._client_generated():
            progress("generating the database client")
            await self._generate_client()

    async def prepare(self) -> None:
        """Create the database, migrate its schema and write config.yaml."""
        await ensure_database(self.layout, self.name)
        try:
            await apply_litellm_migrations(
                database_url(self.layout, self.name), self._package("proxy_extras", "migrations")
            )
        except psycopg.Error as error:
            raise StackError(f"LiteLLM's database could not be brought up to date: {error}") from error
        cost_map = json.loads(self._package("", "model_prices_and_context_window_backup.json").read_text())
        write_private(self._home() / "config.yaml", configuration(upstream(self.layout), cost_map))

    def command(self) -> Command:
        """uvicorn instead of the `litellm` command, which first runs Prisma's migration engine for some seconds."""
        argv = self._environment.uvicorn(
            "litellm_server.py", "litellm.proxy.proxy_server:app", self.port, drain_seconds=2
        )
        return Command(argv, self._settings(), self._home(), stop_seconds=6)

    async def healthy(self) -> bool:
        """Whether it serves requests and its database is connected."""
        return await responds(f"{litellm_url(self.layout)}/health/readiness")

    def _settings(self) -> dict[str, str]:
        model = upstream(self.layout)
        return {
            **self.layout.base_environment(),
            "HOME": str(self._home()),
            "CONFIG_FILE_PATH": str(self._home() / "config.yaml"),
            "DATABASE_URL": database_url(self.layout, self.name) + DATABASE_OPTIONS,
            "PRISMA_QUERY_ENGINE_BINARY": str(self._engine_program),
            "LITELLM_MASTER_KEY": litellm_master_key(self.layout),
            "LITELLM_SALT_KEY": self.layout.secret("litellm_salt", prefix="sk-"),  # encrypts keys in its database
            "LITELLM_MODE": "PRODUCTION",  # reads no .env file
            "LITELLM_LOG": "WARNING",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # the prices in the wheel, not downloaded ones
            "LITELLM_TELEMETRY": "False",
            "DISABLE_SCHEMA_UPDATE": "true",  # `prepare` migrates the schema
            "DISABLE_ADMIN_UI": "True",
            "NO_DOCS": "True",
            MODEL_URL: model.url,
            MODEL_KEY: model.key,
        }

    async def _generate_client(self) -> None:
        """Run prisma-client-py's generator. It needs Node, Prisma's CLI and an engine, which it would download."""
        python, schema = self._environment.python, self._package("proxy_extras", "schema.prisma")
        program, home = str(self._engine_program), self._home()
        base = self.layout.base_environment()
        path = ":".join((str(python.parent), str(self._engine.node.program.parent), base.get("PATH", "/usr/bin:/bin")))
        env = {
            **base,
            "HOME": str(home),
            "PATH": path,
            "PRISMA_BINARY_CACHE_DIR": str(self._engine.folder),  # where it looks for node_modules/prisma
            "PRISMA_QUERY_ENGINE_BINARY": program,
            "PRISMA_SCHEMA_ENGINE_BINARY": program,
            "CHECKPOINT_DISABLE": "1",
        }
        argv = (str(python.parent / "prisma"), "generate", "--schema", str(schema))
        log = self.layout.log("install-litellm")
        await processes.run(Command(argv, env, home), log, "generating LiteLLM's database client")
        types = self._environment.packages / "prisma" / "types.py"
        types.write_text(without_nested_includes(types.read_text()))
        write_private(self._client_stamp, self._client_digest())

    def _client_generated(self) -> bool:
        try:
            return self._client_stamp.read_text() == self._client_digest()
        except OSError:
            return False

    def _client_digest(self) -> str:
        """Digest of the engine's lock, and of what the client is without. The client also depends on its environment,
        whose folder contains the stamp."""
        lock = (ENGINE_SOURCES / "package-lock.json").read_bytes()
        return hashlib.sha256(lock + _NESTED_INCLUDE.pattern.encode()).hexdigest()

    @property
    def _engine_program(self) -> Path:
        return self._engine.folder / "query-engine"

    def _write_engine_program(self) -> None:
        """Write the executable that LiteLLM's database client starts instead of Prisma's native engine."""
        command = shlex.join((str(self._engine.node.program), str(self._engine.folder / "main.mjs")))
        self._engine_program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        self._engine_program.chmod(0o700)

    def _package(self, extension: str, file: str) -> Path:
        """A file of one of LiteLLM's packages: `litellm`, or `litellm_<extension>`."""
        return self._environment.packages / "_".join(filter(None, ("litellm", extension))) / file

    def _home(self) -> Path:
        return self.layout.folder("litellm")


def without_nested_includes(types: str) -> str:
    """The source of the database client's types, without those that combine two of LiteLLM's 97 tables.

    These 27,936 classes of 30,452 are for type checkers alone; to import them takes LiteLLM 3 s and 130 MB."""
    blocks = types.split("\n\n\n")
    found = ((block, _NESTED_INCLUDE.match(block.lstrip())) for block in blocks)
    return "\n\n\n".join(block for block, of in found if of is None or of["included"] == of["by"])


def upstream(layout: Layout) -> Upstream:
    """The model of OPENAI_API_KEY and OPENAI_BASE_URL, else the demo model; in both cases named AGENT_MODEL."""
    model = layout.environ.get("AGENT_MODEL") or DEFAULT_MODEL
    key = layout.environ.get("OPENAI_API_KEY")
    if key:
        return Upstream(model, layout.environ.get("OPENAI_BASE_URL") or OPENAI_URL, key)
    return Upstream(model, demo_model_url(layout), "demo", demo=True)


def litellm_url(layout: Layout) -> str:
    """LiteLLM's URL, for the server and for Letta."""
    return f"http://{LOOPBACK}:{layout.port('litellm')}"


def litellm_master_key(layout: Layout) -> str:
    """The administration key; never used for a user's model calls."""
    return layout.secret("litellm_master", prefix="sk-")
