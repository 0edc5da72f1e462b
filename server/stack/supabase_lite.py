"""Supabase Lite, Supabase's small server (compatible with GoTrue and PostgREST) on the stack's PostgreSQL.

Applies `supabase/migrations`, as `chat migrate` does in a hosted project."""

import asyncio
from pathlib import Path

import psycopg

from server.adapters.supabase.migration_files import MigrationError, project_migrations
from server.adapters.supabase.migrations import apply_migrations
from server.stack import processes
from server.stack.environments import Node, NodePackages
from server.stack.errors import StackError
from server.stack.health import responds
from server.stack.layout import LOOPBACK, Layout
from server.stack.mails import mail_file
from server.stack.postgres import connect, ensure_login, superuser_url
from server.stack.service import Command, Progress, Service

SOURCES = Path(__file__).parent / "supabase"
LOGIN = "supabase_lite"


class SupabaseLite(Service):
    """Sign-in and the database's REST interface of the local stack."""

    name = "supabase"
    depends_on = ("postgres",)

    def __init__(self, layout: Layout, node: Node) -> None:
        super().__init__(layout)
        self._packages = NodePackages(node, "supabase", SOURCES)

    @property
    def installed(self) -> bool:
        """Whether Node and its packages are installed."""
        return self._packages.installed

    async def install(self, progress: Progress) -> None:
        """Install Node from a wheel and Supabase Lite from npm."""
        await self._packages.install(progress)

    async def prepare(self) -> None:
        """Create roles, the `auth` schema and the project's tables before Lite starts and reads the schema."""
        roles = (SOURCES / "roles.sql").read_text(encoding="utf-8")
        try:
            async with await connect(superuser_url(self.layout)) as connection:
                await ensure_login(connection, LOGIN, self.layout.secret("postgres_supabase_lite"))
                await connection.execute(roles.encode())
        except psycopg.Error as error:
            raise StackError(f"Supabase's roles could not be created: {error}") from error
        await processes.run(self._node("--prepare"), self.layout.log(self.name), "creating Supabase's auth schema")
        try:
            await asyncio.to_thread(apply_migrations, superuser_url(self.layout), project_migrations())
        except (MigrationError, psycopg.Error) as error:
            raise StackError(f"the database could not be migrated: {error}") from error

    def command(self) -> Command:
        """One Node process."""
        return self._node()

    async def healthy(self) -> bool:
        """Whether the health check of Auth returns 200."""
        return await responds(f"{supabase_url(self.layout)}/auth/v1/health", {"apikey": anon_key(self.layout)})

    def _node(self, *arguments: str) -> Command:
        folder = self._packages.folder
        return Command(
            argv=(str(self._packages.node.program), str(folder / "serve.mjs"), *arguments),
            env=self._settings(),
            cwd=folder,
        )

    def _settings(self) -> dict[str, str]:
        layout = self.layout
        password = layout.secret("postgres_supabase_lite")
        return {
            **layout.base_environment(),
            "HOME": str(layout.folder("supabase")),
            "DO_NOT_TRACK": "1",
            "LITE_TELEMETRY": "0",
            "LITE_DATABASE_URL": f"postgresql://{LOGIN}:{password}@{LOOPBACK}:{layout.port('postgres')}/postgres",
            "LITE_PORT": str(self.port),
            "LITE_SITE_URL": f"http://{LOOPBACK}:{layout.api_port}",
            "LITE_JWT_SECRET": layout.secret("supabase_jwt"),
            "LITE_JWT_EXPIRY": layout.environ.get("STACK_JWT_EXPIRY", "3600"),
            "LITE_AUTH_BCRYPT_COST": layout.environ.get("STACK_BCRYPT_COST", "10"),
            "NODE_COMPILE_CACHE": str(layout.folder("supabase") / "compile-cache"),
            "LITE_CONFIRM_EMAIL": "true" if confirms_addresses(layout) else "false",
            "LITE_PUBLISHABLE_KEY": anon_key(layout),
            "LITE_SECRET_KEY": service_key(layout),
            "LITE_REDIRECT_URLS": layout.environ.get("STACK_REDIRECT_URLS", ""),
            "LITE_MAIL_FILE": str(mail_file(layout.root)),
            "LITE_SIGNING_KEY_FILE": str(layout.folder("supabase") / "signing-key.json"),
        }


def confirms_addresses(layout: Layout) -> bool:
    """Whether who registers must open the link in a mail (`chat mails`) before signing in."""
    return layout.environ.get("STACK_CONFIRM_EMAIL") == "true"


def supabase_url(layout: Layout) -> str:
    """The project's URL (SUPABASE_URL)."""
    return f"http://{LOOPBACK}:{layout.port('supabase')}"


def anon_key(layout: Layout) -> str:
    """The publishable key."""
    return layout.secret("supabase_publishable", prefix="sb_publishable_")


def service_key(layout: Layout) -> str:
    """The secret key, for servers only."""
    return layout.secret("supabase_secret", prefix="sb_secret_")
