"""Faults of LiteLLM are retried and then raised as unavailable; refusals of a request are returned."""

import aiohttp
import pytest
from pydantic import SecretStr

from server.adapters.litellm.client import LiteLLMClient
from server.adapters.litellm.probe import LiteLLMProbe
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience import Backoff, Breaker, Guard, ServiceError
from tests.unit.adapters.litellm.scripted import ScriptedLiteLLM, connected, error

UNAVAILABLE = ErrorCode.LITELLM_UNAVAILABLE
FAULTS = [(500, {}), (503, "no database"), (429, {}), (200, "<html>not JSON</html>"), (200, "null"), (200, "[]")]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_temporary_fault_is_hidden_by_a_retry(
    service: ScriptedLiteLLM, client: LiteLLMClient, fault: tuple[int, object]
) -> None:
    service.says("/model/info", fault, (200, {"data": []}))
    assert (await client.get("/model/info")).body == {"data": []}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_lasting_fault_is_litellm_unavailable(
    service: ScriptedLiteLLM, client: LiteLLMClient, fault: tuple[int, object]
) -> None:
    service.says("/model/info", fault)
    with pytest.raises(PlatformError) as raised:
        await client.get("/model/info")
    assert raised.value.code is UNAVAILABLE
    assert len(service.asked) == 2


async def test_a_refused_connection_is_litellm_unavailable() -> None:
    guard = Guard(Breaker("litellm", UNAVAILABLE), attempts=2, backoff=Backoff(0, 0))
    async with aiohttp.ClientSession() as session:
        client = LiteLLMClient("http://127.0.0.1:9", SecretStr("sk-x"), session, guard)
        with pytest.raises(PlatformError) as raised:
            await client.get("/model/info")
    assert raised.value.code is UNAVAILABLE


async def test_an_unavailable_litellm_opens_the_breaker(service: ScriptedLiteLLM) -> None:
    service.says("/model/info", (503, {}))
    guard = Guard(Breaker("litellm", UNAVAILABLE, threshold=2), attempts=2, backoff=Backoff(0, 0))
    async with connected(service, guard) as client:
        for _ in range(3):
            with pytest.raises(PlatformError) as raised:
                await client.get("/model/info")
    assert raised.value.retry_after
    assert len(service.asked) == 2


async def test_a_refused_master_key_is_logged_and_not_retried(service: ScriptedLiteLLM, client: LiteLLMClient) -> None:
    service.says("/user/new", (401, error("Invalid proxy server token passed")))
    with pytest.raises(PlatformError) as raised:
        await client.post("/user/new", {})
    assert (raised.value.code, raised.value.retryable) == (UNAVAILABLE, True)
    assert len(service.asked) == 1


async def test_a_refusal_is_returned_with_its_reason(service: ScriptedLiteLLM, client: LiteLLMClient) -> None:
    service.says("/user/new", (409, error("exists", "user_id")))
    answer = await client.post("/user/new", {})
    assert (answer.ok, answer.status, answer.error["param"]) == (False, 409, "user_id")


async def test_a_refusal_without_a_reason_has_none(service: ScriptedLiteLLM, client: LiteLLMClient) -> None:
    service.says("/user/new", (422, {"detail": []}), (400, []))
    assert (await client.post("/user/new", {})).error == {}
    assert (await client.post("/user/new", {})).error == {}


async def test_the_probe_accepts_a_litellm_with_its_database(service: ScriptedLiteLLM, client: LiteLLMClient) -> None:
    service.says("/health/liveliness", (200, '"I\'m alive!"'))
    service.says("/health/readiness", (200, {"status": "healthy", "db": "connected"}))
    await LiteLLMProbe(client).ping()
    assert {asked.authorization for asked in service.asked} == {None}


@pytest.mark.parametrize(
    "readiness", [(200, {"status": "healthy", "db": "Not connected"}), (503, {"status": "unhealthy"}), (404, {})]
)
async def test_the_probe_reports_a_missing_database(
    service: ScriptedLiteLLM, client: LiteLLMClient, readiness: tuple[int, object]
) -> None:
    service.says("/health/liveliness", (200, '"I\'m alive!"'))
    service.says("/health/readiness", readiness)
    with pytest.raises(ServiceError):
        await LiteLLMProbe(client).ping()


@pytest.mark.parametrize(
    ("answer", "release"),
    [
        ((200, {"litellm_version": "1.106.2", "status": "healthy"}), "1.106.2"),
        ((200, {"status": "healthy"}), None),
        ((404, {"detail": "Not Found"}), None),
    ],
)
async def test_litellm_reports_its_release_to_the_master_key(
    service: ScriptedLiteLLM, client: LiteLLMClient, answer: tuple[int, object], release: str | None
) -> None:
    service.says("/health/readiness/details", answer)
    assert await LiteLLMProbe(client).release() == release
    assert service.asked[0].authorization is not None
