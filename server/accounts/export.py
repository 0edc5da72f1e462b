"""A user's own copy of everything that is stored about the user, as one JSON document in pieces.

Memory is bounded: rows are read page by page, the agent's file is passed on as it arrives. The last member of a whole
document is `"complete": true`: one that breaks off has no such member, and is no valid JSON."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import orjson

from server.ports import AccountStore, AgentHandle, AgentMemory, ExportStore
from server.ports.export import PARTS
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Json, wire_time

FORMAT: Final = "ai-chat-platform/export/1"
PAGE: Final = 100
"""Rows read at once. A message has at most 32,000 characters."""
PIECE_BYTES: Final = 64 * 1024
_SINGLE: Final = frozenset({"account", "budget"})


@dataclass(frozen=True, slots=True)
class AccountExport:
    """Reads the stores and the agent's memory."""

    accounts: AccountStore
    rows: ExportStore
    memory: AgentMemory

    async def document(self, user_id: str, exported_at: str) -> AsyncIterator[bytes]:
        """The pieces of the document; `exported_at` as it is written there. The memory comes first, so that a failing
        agent service fails the first piece.

        Raises PlatformError(not_found | supabase_unavailable | letta_unavailable), also in the middle."""
        account = await self.accounts.get(user_id)
        if account is None:
            raise PlatformError(ErrorCode.NOT_FOUND, "This account does not exist.")
        head = {"format": FORMAT, "exported_at": exported_at}
        blocks = None if account.handle is None else await self._blocks(account.handle)
        yield orjson.dumps(head)[:-1] + b',\n"memory": '
        if account.handle is None:
            yield b'null,\n"agent_file": null'
        else:
            yield orjson.dumps({"blocks": blocks})[:-1] + b',\n"passages": '
            async for piece in _array(self._passages(account.handle)):
                yield piece
            yield b'},\n"agent_file": '
            async with self.memory.export(account.handle) as pieces:
                async for piece in pieces:
                    yield piece
        for part in PARTS:
            yield f',\n"{part}": '.encode()
            rows = self._rows(user_id, part)
            async for piece in _first(rows) if part in _SINGLE else _array(rows):
                yield piece
        yield b',\n"complete": true}\n'

    async def _blocks(self, agent: AgentHandle) -> list[Json]:
        return [
            {"label": block.label, "value": block.value, "description": block.description}
            for block in await self.memory.blocks(agent)
        ]

    async def _passages(self, agent: AgentHandle) -> AsyncIterator[Json]:
        before: str | None = None
        while True:
            page = await self.memory.passages(agent, None, PAGE, before)
            for passage in page.data:
                yield {"id": passage.id, "text": passage.text, "created_at": wire_time(passage.created_at)}
            if not (page.has_more and page.data):
                return
            before = page.data[-1].id

    async def _rows(self, user_id: str, part: str) -> AsyncIterator[Json]:
        after: str | None = None
        while True:
            page = await self.rows.page(user_id, part, after, PAGE)
            for row in page.rows:
                yield row
            if page.next is None:
                return
            after = page.next


class RunningExports:
    """The users whose exports run on this instance: one at a time for each."""

    def __init__(self) -> None:
        self._users: set[str] = set()

    @contextmanager
    def one(self, user_id: str) -> Iterator[None]:
        """Enter around an export. Raises PlatformError(rate_limited)."""
        if user_id in self._users:
            sentence = "An export of this account is running already."
            raise PlatformError(ErrorCode.RATE_LIMITED, sentence, retry_after=10.0)
        self._users.add(user_id)
        try:
            yield
        finally:
            self._users.discard(user_id)


async def in_large_pieces(document: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The same bytes in pieces of at least `PIECE_BYTES`, except the last."""
    waiting = bytearray()
    async for piece in document:
        waiting += piece
        if len(waiting) >= PIECE_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


async def _array(rows: AsyncIterator[Json]) -> AsyncIterator[bytes]:
    separator = b"["
    async for row in rows:
        yield separator + b"\n" + orjson.dumps(row)
        separator = b","
    yield b"[]" if separator == b"[" else b"]"


async def _first(rows: AsyncIterator[Json]) -> AsyncIterator[bytes]:
    found: Json | None = None
    async for row in rows:
        found = found or row
    yield orjson.dumps(found)
