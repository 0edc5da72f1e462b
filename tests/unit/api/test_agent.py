"""The agent's status and memory."""

import asyncio

import pytest

from server.ports import AgentHandle, ContextWindow, MemoryBlock
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from tests.fakes.agent import Reply
from tests.fakes.memory import FakeMemory
from tests.unit.api.world import Client, World

STATUS = "/api/v1/agent/status"
MEMORY = "/api/v1/agent/memory"


async def _refuse(_operation: str) -> None:
    raise ConnectionRefusedError


async def _remembering(world: World, *texts: str) -> Client:
    user = await world.user()
    world.memory.remember(await world.provisioner.ready(user.user_id), *texts)
    return user


async def test_status_has_the_agent_the_running_turn_and_the_queue(world: World) -> None:
    user = await world.user()
    idle = (await user.get(STATUS)).json
    assert (idle["status"], idle["model"], idle["turn"], idle["queued"]) == ("active", "gpt-4", None, 0)
    assert idle["agent_id"] == world.database.profiles[user.user_id].account.agent_id
    world.gateway.plan(Reply(words=("Hm",), stuck=True))
    at_once = {"Prefer": "respond-async"}
    turn = (await user.post("/api/v1/chat/message", {"content": "one"}, headers=at_once)).json
    await user.post("/api/v1/chat/message", {"content": "two"}, headers=at_once)
    busy = (await user.get(STATUS)).json
    assert (busy["turn"]["turn_id"], busy["queued"]) == (turn["id"], 1)


async def test_status_of_an_agent_that_cannot_be_provisioned_has_the_reason() -> None:
    world = World()
    world.directory.before = _refuse
    async with world.serving():
        user = await world.user(ready=False)
        status = await user.get(STATUS)
    assert (status.status, status.json["status"], status.json["agent_id"]) == (200, "provisioning", None)


async def test_memory_has_blocks_passages_and_the_context_window(world: World) -> None:
    user = await _remembering(world, "likes tea", "has a cat")
    memory = (await user.get(MEMORY)).json
    assert [block["label"] for block in memory["blocks"]] == ["human", "persona"]
    assert [passage["text"] for passage in memory["archival"]["data"]] == ["has a cat", "likes tea"]
    assert memory["context"]["window"] == 32_000


async def test_archival_memory_is_paged_and_searched(world: World) -> None:
    user = await _remembering(world, "one cat", "two dogs", "three cats")
    first = (await user.get(MEMORY, params={"limit": "2"})).json["archival"]
    second = (await user.get(MEMORY, params={"limit": "2", "before": first["next_cursor"]})).json["archival"]
    assert [p["text"] for p in first["data"] + second["data"]] == ["three cats", "two dogs", "one cat"]
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    found = (await user.get(MEMORY, params={"query": "cat"})).json["archival"]["data"]
    assert [p["text"] for p in found] == ["three cats", "one cat"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_request"),
        ("limit=101", "invalid_request"),
        ("query=", "invalid_request"),
        ("query=a%00b", "invalid_request"),
        ("before=../../agents", "invalid_cursor"),
        ("before=a%26limit=9", "invalid_cursor"),
        ("before=zzz", "invalid_cursor"),
        ("before=passage-1", "invalid_cursor"),
    ],
)
async def test_memory_refuses_invalid_queries(world: World, query: str, code: str) -> None:
    answer = await (await world.user()).get(f"{MEMORY}?{query}")
    assert (answer.status, answer.code) == (400, code)


async def test_users_see_only_the_memory_of_their_own_agent(world: World) -> None:
    await _remembering(world, "a secret of Ann's")
    bob = await world.user()
    assert (await bob.get(MEMORY)).json["archival"]["data"] == []


async def test_a_block_is_rewritten(world: World) -> None:
    user = await world.user()
    answer = await user.patch(f"{MEMORY}/human", {"value": "Her name is Ann."})
    assert (answer.status, answer.json["label"], answer.json["value"]) == (200, "human", "Her name is Ann.")
    assert (await user.get(MEMORY)).json["blocks"][0]["value"] == "Her name is Ann."
    assert (await user.patch(f"{MEMORY}/human", {"value": ""})).status == 200


async def test_a_block_cannot_be_rewritten_while_a_turn_runs(world: World) -> None:
    world.gateway.plan(Reply(words=("Hm",), stuck=True))
    user = await world.user()
    await user.post("/api/v1/chat/message", {"content": "one"}, headers={"Prefer": "respond-async"})
    answer = await user.patch(f"{MEMORY}/human", {"value": "other"})
    assert (answer.status, answer.code) == (409, "busy")


@pytest.mark.parametrize("label", ["unknown", "a b", "%2e%2e%2fagents", "x" * 51, "%00"])
async def test_a_block_that_does_not_exist_is_404(world: World, label: str) -> None:
    answer = await (await world.user()).patch(f"{MEMORY}/{label}", {"value": "x"})
    assert (answer.status, answer.code) == (404, "not_found")


async def test_a_value_above_the_blocks_limit_is_413(world: World) -> None:
    answer = await (await world.user()).patch(f"{MEMORY}/human", {"value": "x" * 101})
    assert (answer.status, answer.code) == (413, "too_large")


async def test_memory_is_503_while_letta_is_unavailable_and_history_works(world: World) -> None:
    user = await world.user()
    await user.say("hello")
    world.memory.down = True
    answer = await user.get(MEMORY)
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "letta_unavailable", "5")
    assert len((await user.get("/api/v1/chat/history")).json["data"]) == 2


async def test_a_closed_account_loses_its_agent_within_seconds(world: World) -> None:
    user = await world.user()
    assert (await user.get(STATUS)).status == 200
    world.set_status(user.user_id, AgentStatus.BLOCKED)
    world.seconds += 16
    answer = await user.get(STATUS)
    assert (answer.status, answer.code) == (403, "account_blocked")


async def test_memory_is_503_after_the_timeout_of_letta(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    user = await world.user()
    monkeypatch.setattr("server.api.memory._LETTA_TIMEOUT", 0.05)

    async def never(_memory: FakeMemory, _agent: AgentHandle) -> ContextWindow:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(FakeMemory, "context", never)
    answer = await user.get(MEMORY)
    assert (answer.status, answer.code) == (503, "letta_unavailable")


async def test_after_an_outage_a_request_to_the_memory_makes_one_call_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The breaker lets one call through; refused calls beside it would cancel it."""
    user = await world.user()
    asked: list[str] = []

    async def blocks(_memory: FakeMemory, _agent: AgentHandle) -> list[MemoryBlock]:
        asked.append("blocks")
        await asyncio.sleep(0)
        raise PlatformError(ErrorCode.LETTA_UNAVAILABLE)

    async def context(_memory: FakeMemory, _agent: AgentHandle) -> ContextWindow:
        asked.append("context")
        raise PlatformError(ErrorCode.LETTA_UNAVAILABLE)

    monkeypatch.setattr(FakeMemory, "blocks", blocks)
    monkeypatch.setattr(FakeMemory, "context", context)
    assert (await user.get(MEMORY)).status == 503
    assert asked == ["blocks"]


ARCHIVAL = f"{MEMORY}/archival"


async def test_passages_are_added_replaced_and_deleted(world: World) -> None:
    user = await _remembering(world, "likes tea")
    added = await user.post(ARCHIVAL, {"text": "has a cat"})
    assert (added.status, added.json["text"]) == (201, "has a cat")
    replaced = await user.patch(f"{ARCHIVAL}/{added.json['id']}", {"text": "has two cats"})
    assert (replaced.status, replaced.json["text"]) == (200, "has two cats")
    assert replaced.json["created_at"] == added.json["created_at"]
    assert [one["text"] for one in (await user.get(ARCHIVAL)).json["data"]] == ["has two cats", "likes tea"]
    assert (await user.delete(f"{ARCHIVAL}/{replaced.json['id']}")).status == 204
    assert [one["text"] for one in (await user.get(ARCHIVAL)).json["data"]] == ["likes tea"]


async def test_the_archival_memory_alone_is_paged_and_searched(world: World) -> None:
    user = await _remembering(world, "one cat", "two dogs", "three cats")
    first = (await user.get(ARCHIVAL, params={"limit": 2})).json
    assert [one["text"] for one in first["data"]] == ["three cats", "two dogs"]
    rest = (await user.get(ARCHIVAL, params={"before": first["next_cursor"]})).json
    assert ([one["text"] for one in rest["data"]], rest["next_cursor"]) == (["one cat"], None)
    found = (await user.get(ARCHIVAL, params={"query": "dogs"})).json
    assert [one["text"] for one in found["data"]] == ["two dogs"]
    assert (await user.get(ARCHIVAL, params={"before": "passage-1"})).code == "invalid_cursor"


@pytest.mark.parametrize("passage_id", ["passage-1", "passage-00000000-0000-4000-8000-000000000000", "..%2Fblocks"])
async def test_a_passage_that_does_not_exist_is_not_found(world: World, passage_id: str) -> None:
    user = await _remembering(world, "likes tea")
    for answer in (
        await user.patch(f"{ARCHIVAL}/{passage_id}", {"text": "x"}),
        await user.delete(f"{ARCHIVAL}/{passage_id}"),
    ):
        assert (answer.status, answer.code) == (404, "not_found")


async def test_passages_of_another_user_cannot_be_reached(world: World) -> None:
    ada, bob = await _remembering(world, "likes tea"), await world.user()
    (passage,) = (await ada.get(ARCHIVAL)).json["data"]
    assert (await bob.delete(f"{ARCHIVAL}/{passage['id']}")).status == 404
    assert (await bob.patch(f"{ARCHIVAL}/{passage['id']}", {"text": "x"})).status == 404
    assert (await ada.get(ARCHIVAL)).json["data"] == [passage]


@pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": " "}, {"text": None}, {"text": "x", "tags": []}])
async def test_a_passage_needs_a_readable_text(world: World, body: dict[str, object]) -> None:
    user = await world.user()
    assert (await user.post(ARCHIVAL, body)).code == "invalid_request"


async def test_a_passage_that_the_agent_service_finds_too_long_is_refused(world: World) -> None:
    user = await world.user()
    answer = await user.post(ARCHIVAL, {"text": "x" * 20_000})
    assert (answer.status, answer.code) == (413, "too_large")
