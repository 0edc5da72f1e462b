"""The files of a user at a server: who can read them, and what a crash of the machine may have left of them."""

import asyncio
import errno
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ai_chat_client.auth import KEY, Auth
from ai_chat_client.outbox import Outbox
from ai_chat_client.talk.storage import LOCK_PAUSE, LOCK_SECONDS, FileStorage
from tests.virtual_time import virtual_time


def test_only_the_owner_can_read_what_is_stored(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "state" / "server")
    storage[KEY] = "null"
    files = [tmp_path / "state" / "server" / KEY, storage.history()]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    assert stat.S_IMODE((tmp_path / "state" / "server").stat().st_mode) == 0o700


@pytest.mark.parametrize("left", [b"", b'{"access_token": "a', b"\xff\xfe"])
def test_half_a_file_is_none(tmp_path: Path, left: bytes) -> None:
    storage = FileStorage(tmp_path)
    (tmp_path / KEY).write_bytes(left)
    (tmp_path / "chat.outbox.ann.1").write_bytes(left)
    assert Auth("http://127.0.0.1:9", storage).user is None
    assert Outbox(lambda command: None, lambda message_id, error: None, storage).restore("ann") == []
    assert list(storage) == [KEY]


async def test_a_message_that_another_terminal_has_deleted_meanwhile_is_none(tmp_path: Path) -> None:
    class Raced(FileStorage):
        """Another terminal deletes each file between two steps of this one."""

        def __getitem__(self, key: str) -> str:
            value = super().__getitem__(key)
            (tmp_path / key).unlink(missing_ok=True)
            return value

        def __delitem__(self, key: str) -> None:
            (tmp_path / key).unlink(missing_ok=True)
            super().__delitem__(key)

        def __iter__(self) -> Iterator[str]:
            return iter([*super().__iter__(), "chat.outbox.ann.0"])

    sent: list[str | None] = []
    outbox = Outbox(lambda command: sent.append(command.get("id")), lambda message_id, error: None, Raced(tmp_path))
    assert outbox.restore("ann") == []
    answer = outbox.add({"type": "message", "id": "m", "client_message_id": "m", "content": "Hello"})
    ack: Any = {"type": "ack", "id": "m", "turn_id": "t"}
    outbox.receive(ack)
    assert await answer == "t"


@virtual_time
async def test_a_lock_is_held_by_one_terminal_at_a_time(tmp_path: Path) -> None:
    async with FileStorage(tmp_path).lock():
        waiting = asyncio.create_task(_locked_once(FileStorage(tmp_path)))
        await asyncio.sleep(LOCK_SECONDS - 1)
        assert not waiting.done()
    await asyncio.sleep(LOCK_PAUSE)
    assert waiting.done()


@virtual_time
async def test_a_terminal_that_is_suspended_with_the_lock_does_not_stop_the_others(tmp_path: Path) -> None:
    async with FileStorage(tmp_path).lock(), asyncio.timeout(LOCK_SECONDS + 1):
        await _locked_once(FileStorage(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such lock")
async def test_where_the_file_system_has_no_locks_nothing_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    await _locked_once(FileStorage(tmp_path))


async def _locked_once(storage: FileStorage) -> None:
    async with storage.lock():
        pass
