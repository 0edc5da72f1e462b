"""The identity of each request, and the errors for Letta's refusals."""

from collections.abc import AsyncIterator

import pytest

from server.adapters.letta.client import LettaClient, get_json, row
from server.adapters.letta.directory import LettaDirectory
from server.adapters.letta.errors import RefusedError
from server.adapters.letta.gateway import LettaGateway
from server.adapters.letta.memory import LettaMemory
from server.adapters.letta.probe import LettaInspection, LettaProbe, is_supported
from server.ports import AgentGoneError
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience import ServiceError
from tests.unit.adapters.letta.scripted import AGENT, MEMBER, ScriptedLetta, says, says_by_method, scripted_letta

World = tuple[ScriptedLetta, LettaClient]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with scripted_letta() as opened:
        yield opened


async def test_members_do_not_share_their_header(world: World) -> None:
    letta, client = world
    letta.answer = says({})
    other = MEMBER.replace("0001", "0002")
    first, second = client.as_member(MEMBER), client.as_member(other)
    for member in (first, second, first, client.as_admin()):
        await get_json(member, "/v1/agents/")
    assert [request.headers.get("user_id") for request in letta.requests] == [MEMBER, other, MEMBER, None]


async def test_the_sdk_ignores_the_environment(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setenv("LETTA_API_KEY", "somebody-else's")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with scripted_letta() as (letta, client):
        letta.answer = says({})
        await get_json(client.as_member(MEMBER), "/v1/agents/")
        assert letta.requests[0].headers["Authorization"] == "Bearer password"


async def test_the_error_of_a_refusal_does_not_contain_lettas_reason(world: World) -> None:
    letta, client = world
    letta.answer = says({"detail": "Agent not found for actor org-secret"}, status=404)
    with pytest.raises(RefusedError) as refused:
        await client.read(client.as_member(MEMBER), "/v1/agents/x", row("id"))
    assert (refused.value.code, refused.value.status) == (ErrorCode.NOT_FOUND, 404)
    assert "org-secret" in refused.value.detail
    assert "org-secret" not in refused.value.message


@pytest.mark.parametrize("status", [401, 429, 500, 503])
async def test_a_fault_of_letta_is_letta_unavailable(world: World, status: int) -> None:
    letta, client = world
    letta.answer = says({"detail": "…"}, status=status)
    with pytest.raises(PlatformError) as failed:
        await client.read(client.as_member(MEMBER), "/v1/agents/x", row("id"))
    assert failed.value.code is ErrorCode.LETTA_UNAVAILABLE
    assert failed.value.retry_after


async def test_the_probe_reports_whether_letta_answers(world: World) -> None:
    letta, client = world
    letta.answer = says({"version": "0.16.8", "status": "ok"})
    await LettaProbe(client).ping()
    assert await LettaInspection(client).version() == "0.16.8"
    letta.answer = says({}, status=503)
    with pytest.raises(ServiceError):
        await LettaProbe(client).ping()


async def test_the_inspection_reports_an_open_server(world: World) -> None:
    letta, client = world
    letta.answer = says([])
    assert await LettaInspection(client).is_open()
    assert await LettaInspection(client).has_default_actor()
    letta.answer = says({"detail": "Unauthorized"}, status=401)
    assert not await LettaInspection(client).is_open()
    assert not await LettaInspection(client).accepts_password()


async def test_the_inspection_reports_conversations_without_redis(world: World) -> None:
    letta, client = world
    letta.answer = says([])
    assert await LettaInspection(client).conversations() is None
    for status, detail, found in (
        (503, "Background streaming requires Redis to be running.", "unlocked"),
        (400, "No active runs found for this conversation.", "locked"),
        (404, "Not Found", "missing"),
    ):
        letta.answer = says_by_method([{"id": MEMBER}], {"detail": detail}, status)
        assert await LettaInspection(client).conversations() == found


@pytest.mark.parametrize(
    ("version", "supported"), [("0.16.8", True), ("0.16.12", True), ("0.17.0", False), ("0.160.1", False)]
)
def test_only_one_series_of_letta_is_supported(version: str, supported: bool) -> None:
    assert is_supported(version) is supported


@pytest.mark.parametrize("answer", [{}, [], None, "text"], ids=str)
async def test_an_answer_of_another_shape_is_letta_unavailable(world: World, answer: object) -> None:
    letta, client = world
    letta.answer = says(answer)
    for call in (
        lambda: LettaGateway(client).run(AGENT, "run-1"),
        lambda: LettaDirectory(client).create_organization("user"),
        lambda: LettaMemory(client).context(AGENT),
    ):
        with pytest.raises(PlatformError) as failed:
            await call()
        assert failed.value.code is ErrorCode.LETTA_UNAVAILABLE


@pytest.mark.parametrize(
    "body", [{"detail": "Not Found"}, {"message": "Application not found", "code": 404}, [], "gone"]
)
async def test_a_404_that_names_no_object_is_letta_unavailable(world: World, body: object) -> None:
    """An edge sends it during a deployment, or another service at Letta's address: no agent is lost."""
    letta, client = world
    letta.answer = says(body, status=404)
    for call in (
        lambda: client.read(client.as_member(MEMBER), "/v1/agents/x", row("id")),
        lambda: LettaDirectory(client).has_organization("org-1"),
        lambda: LettaMemory(client).blocks(AGENT),
    ):
        with pytest.raises(PlatformError) as failed:
            await call()
        assert failed.value.code is ErrorCode.LETTA_UNAVAILABLE


async def test_an_organization_is_gone_only_if_letta_answers_so(world: World) -> None:
    letta, client = world
    letta.answer = says([])
    assert await LettaDirectory(client).has_organization("org-1")
    letta.answer = says({"detail": "No Organization found with id org-1"}, status=404)
    assert not await LettaDirectory(client).has_organization("org-1")
    letta.answer = says({"detail": "…"}, status=503)
    with pytest.raises(PlatformError) as failed:
        await LettaDirectory(client).has_organization("org-1")
    assert failed.value.code is ErrorCode.LETTA_UNAVAILABLE


async def test_the_memory_of_an_unknown_agent_raises_agent_gone(world: World) -> None:
    letta, client = world
    letta.answer = says({"detail": "Agent not found with id=agent-1"}, status=404)
    memory = LettaMemory(client)
    for call in (
        lambda: memory.blocks(AGENT),
        lambda: memory.update_block(AGENT, "human", "x"),
        lambda: memory.passages(AGENT, None, 10, None),
        lambda: memory.context(AGENT),
    ):
        with pytest.raises(AgentGoneError):
            await call()


async def test_the_inspection_lists_lettas_patches(world: World) -> None:
    letta, client = world
    applied = {"name": "stop", "applied": True, "detail": "closes the model's stream"}
    other = {"name": "fast", "applied": False, "detail": "this is Letta 0.16.9"}
    letta.answer = says({"letta": "0.16.8", "patches": [applied, other]})
    assert await LettaInspection(client).patches() == {"stop": None, "fast": "this is Letta 0.16.9"}


async def test_a_letta_without_patches_lists_none(world: World) -> None:
    letta, client = world
    letta.answer = says({"detail": "Not Found"}, status=404)
    assert await LettaInspection(client).patches() == {}


@pytest.mark.parametrize("body", [{"patches": None}, {"letta": "0.16.8"}, {"patches": [{"name": "stop"}]}])
async def test_an_unreadable_list_of_patches_is_a_fault_of_letta(world: World, body: object) -> None:
    letta, client = world
    letta.answer = says(body)
    with pytest.raises(ServiceError):
        await LettaInspection(client).patches()
