"""Files of one user at one server: the tokens, and messages that are not sent yet. Each value is a file that only its
owner can read, so that two terminals of the same user see each other's fresh tokens."""

import asyncio
import hashlib
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_FOLDER = "ai-chat-platform"
LOCK_PAUSE = 0.05
"""Seconds between two attempts to get the lock."""
LOCK_SECONDS = 90.0
"""How long it is waited for: longer than one renewal of the tokens takes, which is what it is held for."""


def place_of(url: str) -> Path:
    """The folder for a server: in $XDG_STATE_HOME, else ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME")
    parent = Path(state) if state and Path(state).is_absolute() else Path.home() / ".local" / "state"
    address = url.partition("://")[2].rstrip("/")
    readable = re.sub(r"[^\w.-]", "_", address, flags=re.ASCII)[:80]
    return parent / _FOLDER / f"{readable}-{hashlib.sha256(url.rstrip('/').encode()).hexdigest()[:8]}"


class FileStorage(MutableMapping[str, str]):
    """Keys are made of letters, digits and `.-_`. Raises OSError where the folder cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, key: str) -> str:
        try:
            return self._file(key).read_text("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: str) -> None:
        self.prepare()
        file = self._file(key)
        new = file.with_name(f"{file.name}.{os.getpid()}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as written:
            written.write(value)
        new.replace(file)

    def __delitem__(self, key: str) -> None:
        try:
            self._file(key).unlink()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        files = self._folder.iterdir() if self._folder.is_dir() else ()
        return (file.name for file in files if file.suffix != ".new")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def history(self) -> Path:
        """An existing file for what was typed."""
        self.prepare()
        file = self._folder / "typed"
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
        return file

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Held by one terminal at a time; free when it ends, however that happens. One that was suspended meanwhile is
        waited for only LOCK_SECONDS."""
        self.prepare()
        descriptor = os.open(self._folder / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOCK_SECONDS):
                    while not _locked(descriptor):  # noqa: ASYNC110 - no event tells that another process released it
                        await asyncio.sleep(LOCK_PAUSE)
            yield
        finally:
            os.close(descriptor)

    def prepare(self) -> None:
        """Make the folder."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def forget(self) -> None:
        """Delete everything."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, key: str) -> Path:
        assert re.fullmatch(r"[\w.-]+", key, re.ASCII), key
        return self._folder / key


def _locked(descriptor: int) -> bool:
    if sys.platform == "win32":
        return True  # it has no such lock: two terminals that renew at once may have to sign in again
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # as on Windows: the folder is on a network whose file system has no locks
    return True
