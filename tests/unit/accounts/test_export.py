"""The export: one JSON document, read page by page, whole or visibly not."""

import json
from collections.abc import AsyncIterator

import pytest

from server.accounts.export import PAGE, PIECE_BYTES, AccountExport, RunningExports, in_large_pieces
from server.ports import NewTurn
from server.ports.export import PARTS
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Allowance
from tests.fakes.export import FakeExportStore
from tests.fakes.memory import FakeMemory
from tests.fakes.store import FakeSessionStore
from tests.unit.provisioning.world import ANN, BOB, World

NOW = "2026-01-01T00:00:00Z"


async def talked(world: World, user_id: str, *texts: str) -> None:
    store = FakeSessionStore(world.database)
    for text in texts:
        new = NewTurn(user_id, text, text, text, "enqueue")
        await store.accept(new, "instance", start=False, allowance=Allowance(waiting=10_000))


async def document(world: World, memory: FakeMemory, user_id: str = ANN) -> bytes:
    export = AccountExport(world.store, FakeExportStore(world.database), memory)
    return b"".join([piece async for piece in export.document(user_id, NOW)])


async def test_it_has_every_part_of_one_user_and_no_others(world: World) -> None:
    memory = FakeMemory()
    for user_id, words in ((ANN, "Ann's"), (BOB, "Bob's")):
        agent = await world.process().ready(user_id, world.database.users[user_id])
        memory.remember(agent, f"{words} secret")
        await talked(world, user_id, f"{words} words")
    text = await document(world, memory)
    exported = json.loads(text)
    assert {*exported} == {"format", "exported_at", "memory", "agent_file", *PARTS, "complete"}
    assert exported["complete"] is True
    assert exported["exported_at"] == NOW
    assert exported["account"]["email"] == "ann@example.com"
    assert [one["content"] for one in exported["messages"]] == ["Ann's words"]
    assert [one["text"] for one in exported["memory"]["passages"]] == ["Ann's secret"]
    assert [one["label"] for one in exported["memory"]["blocks"]] == ["human", "persona"]
    assert exported["agent_file"] == {"agents": [world.account().agent_id]}
    assert b"Bob" not in text


async def test_long_parts_are_read_page_by_page_and_in_order(world: World) -> None:
    memory, texts = FakeMemory(), [f"message {number}" for number in range(2 * PAGE + 5)]
    agent = await world.process().ready(ANN, "ann@example.com")
    memory.remember(agent, *texts)
    await talked(world, ANN, *texts)
    world.calls.clear()
    exported = json.loads(await document(world, memory))
    assert [one["content"] for one in exported["messages"]] == texts
    assert [one["text"] for one in exported["memory"]["passages"]] == texts[::-1]
    assert world.calls.count("export messages") == 3


async def test_a_user_without_an_agent_is_exported_too(world: World) -> None:
    await world.store.ensure(ANN, "ann@example.com", None)
    exported = json.loads(await document(world, FakeMemory()))
    assert (exported["memory"], exported["agent_file"], exported["messages"]) == (None, None, [])


async def test_a_failing_agent_service_fails_before_the_first_piece(world: World) -> None:
    await world.process().ready(ANN, "ann@example.com")
    export = AccountExport(world.store, FakeExportStore(world.database), FakeMemory(down=True))
    with pytest.raises(PlatformError) as refusal:
        await anext(export.document(ANN, NOW))
    assert refusal.value.code is ErrorCode.LETTA_UNAVAILABLE


async def test_a_failure_in_the_middle_leaves_no_valid_document(world: World) -> None:
    await world.process().ready(ANN, "ann@example.com")
    export = AccountExport(world.store, FakeExportStore(world.database), FakeMemory(broken_file=True))
    pieces = export.document(ANN, NOW)
    written = await anext(pieces)

    async def write_the_rest() -> None:
        nonlocal written
        async for piece in pieces:
            written += piece

    with pytest.raises(PlatformError):
        await write_the_rest()
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(written)
    assert b"complete" not in written


async def test_an_unknown_user_is_not_found(world: World) -> None:
    with pytest.raises(PlatformError) as refusal:
        await document(world, FakeMemory(), "nobody")
    assert refusal.value.code is ErrorCode.NOT_FOUND


async def test_small_pieces_are_joined() -> None:
    async def many() -> AsyncIterator[bytes]:
        for _ in range(3 * PIECE_BYTES):
            yield b"x"

    sizes = [len(piece) async for piece in in_large_pieces(many())]
    assert sizes == [PIECE_BYTES] * 3


def test_one_export_of_a_user_runs_at_a_time() -> None:
    running = RunningExports()
    with running.one(ANN), running.one(BOB):
        with pytest.raises(PlatformError) as refusal, running.one(ANN):
            raise AssertionError("unreachable")
        assert refusal.value.code is ErrorCode.RATE_LIMITED
    with running.one(ANN):
        pass
