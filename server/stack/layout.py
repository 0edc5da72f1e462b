"""The data directory of a local stack: its paths, generated secrets and chosen ports.

Uses only that directory, and the loopback interface to find free ports."""

import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from server.stack.errors import StackError

LOOPBACK = "127.0.0.1"
PRIVATE_PORTS = range(21000, 29000)
"""Below the ephemeral range of Linux (32768 and up), so that outgoing connections rarely use a stored port."""

MARKER = "stack.json"
INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Layout:
    """The data directory of one local stack.

    Secrets are random, generated on first use and stored (mode 0600), so that logins stay valid after a restart."""

    def __init__(self, root: Path, api_port: int, environ: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.api_port = api_port
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self._secrets = _Values(root / "secrets.json")
        self._ports = _Values(root / "ports.json")
        self._checked_ports: dict[str, int] = {}

    @classmethod
    def open(cls, root: Path, api_port: int, environ: Mapping[str, str] | None = None) -> "Layout":
        """Create the directory if needed. Raises StackError when it cannot be created or written."""
        root = root.resolve()
        try:
            root.mkdir(parents=True, exist_ok=True)
            if any(root.iterdir()) and not (root / MARKER).exists():
                raise StackError(f"{root} holds other things than a data directory of ours; name another --data-dir")
            root.chmod(0o711)  # PostgreSQL's user must be able to traverse it; others can read nothing inside
            (root / MARKER).write_text(json.dumps({"layout": 1}) + "\n")
            for folder in ("logs", "run"):
                (root / folder).mkdir(mode=0o700, exist_ok=True)
        except PermissionError as error:
            raise StackError(f"no permission to write in {error.filename or root}; name another --data-dir") from error
        except OSError as error:
            raise StackError(f"{root} cannot be used as the data directory: {error.strerror}") from error
        return cls(root, api_port, environ)

    def folder(self, *parts: str, mode: int = 0o700) -> Path:
        """A folder inside the data directory, created if missing."""
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True, mode=mode)
        return path

    def environment(self, name: str) -> Path:
        """The folder of the installed software `name`. Does not create it."""
        return self.root / "env" / name

    def log(self, name: str) -> Path:
        """The log file of a service, or of the stack itself (`stack`)."""
        return self.root / "logs" / f"{name}.log"

    def secret(self, name: str, prefix: str = "") -> str:
        """A random URL-safe secret of 256 bits, the same on every call and every start."""
        return self._secrets.get_or_set(name, lambda: prefix + secrets.token_urlsafe(32))

    def known(self, name: str) -> str | None:
        """The secret, or None if it was not generated yet."""
        return self._secrets.get(name)

    def port(self, name: str) -> int:
        """The loopback port of a service: that of the last start if it is still free, else a new one, which is stored.

        Whether it is free is checked once per process, before the service starts."""
        if name == "server":
            return self.api_port
        if name not in self._checked_ports:
            kept = self._ports.get(name)
            taken = set(self._checked_ports.values())
            port = int(kept) if kept and int(kept) not in taken and port_is_free(int(kept)) else _choose_port(taken)
            self._ports.set(name, str(port))
            self._checked_ports[name] = port
        return self._checked_ports[name]

    def base_environment(self) -> dict[str, str]:
        """The part of the caller's environment that every service inherits: no keys, no Python or index settings.

        Proxies are inherited, but not used between the services."""
        env = {name: self.environ[name] for name in INHERITED if name in self.environ}
        for proxy in PROXIES:
            for name in (proxy, proxy.lower()):
                if name in self.environ:
                    env[name] = self.environ[name]
        env["NO_PROXY"] = env["no_proxy"] = "127.0.0.1,localhost"
        env.setdefault("LANG", "C.UTF-8")
        return env

    def wipe(self) -> None:
        """Delete the data directory. Raises StackError if the folder is not one."""
        if not (self.root / MARKER).exists():
            raise StackError(f"{self.root} is not a data directory of this program; nothing was deleted")
        shutil.rmtree(self.root)


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on the port now. Ports of connections in TIME_WAIT count as free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _choose_port(taken: set[int]) -> int:
    for _ in range(200):
        port = secrets.choice(PRIVATE_PORTS)
        if port not in taken and port_is_free(port):
            return port
    raise StackError(f"no free port was found on {LOOPBACK} between {PRIVATE_PORTS.start} and {PRIVATE_PORTS.stop}")


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; only its owner can read it (0600)."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


class _Values:
    """A small file of named strings, read on first use and rewritten on each change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, str] | None = None

    def get(self, name: str) -> str | None:
        if self._values is None:
            try:
                self._values = dict(json.loads(self._path.read_text(encoding="utf-8")))
            except FileNotFoundError:
                self._values = {}
            except ValueError as error:
                raise StackError(f"{self._path} is damaged; restore it, or delete all: `chat down --wipe`") from error
        return self._values.get(name)

    def set(self, name: str, value: str) -> None:
        if self.get(name) == value:
            return
        self._values = {**(self._values or {}), name: value}
        write_private(self._path, json.dumps(self._values, indent=1) + "\n")

    def get_or_set(self, name: str, make: Callable[[], str]) -> str:
        value = self.get(name)
        if value is None:
            value = make()
            self.set(name, value)
        return value
