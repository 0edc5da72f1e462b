"""The client's calls: which key is sent where, what is retried, and how errors are classified."""

import asyncio
from collections.abc import Awaitable, MutableMapping
from typing import Any

import httpx
import pytest
import structlog
from aiohttp import web
from pydantic import SecretStr

from server.adapters.supabase.client import REQUEST_SECONDS, SupabaseClient
from server.adapters.supabase.faults import Faults, SupabaseError
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.unit.adapters.supabase.project import ANON, SERVICE, Project
from tests.virtual_time import virtual_time_with_sockets

CALL, MESSAGES, HEALTH = "/rest/v1/rpc/work", "/rest/v1/messages", "/auth/v1/health"


async def test_secret_keys_are_sent_in_the_apikey_header_only(project: Project, client: SupabaseClient) -> None:
    project.answers[CALL] = (200, {"outcome": "ok"})

    assert await client.call("work", user_id="u", limit=3) == {"outcome": "ok"}

    [request] = project.seen
    assert request.headers["apikey"] == SERVICE
    assert "Authorization" not in request.headers
    assert await request.json() == {"p_user_id": "u", "p_limit": 3}


async def test_legacy_keys_are_sent_as_bearer_tokens_too(project: Project) -> None:
    client = SupabaseClient(project.url, SecretStr("eyJ.anon.key"), SecretStr("eyJ.service.key"))
    project.answers[CALL] = (200, None)

    assert await client.call("work") is None
    await client.aclose()

    assert project.seen[0].headers["Authorization"] == "Bearer eyJ.service.key"


async def test_reads_send_the_users_token_and_the_publishable_key(project: Project, client: SupabaseClient) -> None:
    project.answers["/rest/v1/messages"] = (200, [{"id": 1}])

    rows = await client.read(SecretStr("a.b.c"), lambda rest: rest.from_("messages").select("id"))

    [request] = project.seen
    assert rows == [{"id": 1}]
    assert (request.headers["apikey"], request.headers["Authorization"]) == (ANON, "Bearer a.b.c")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"code": "SUP", "message": "Error: connect ECONNREFUSED 127.0.0.1:5432"}),
        (503, {"code": "PGRST001", "message": "Database client error"}),
        (504, {"code": "PGRST003", "message": "Timed out acquiring connection from connection pool."}),
        (500, {"code": "57014", "message": "canceling statement due to statement timeout"}),
        (500, {"code": "40P01", "message": "deadlock detected"}),
        (502, "<html>Bad gateway</html>"),
        (522, "<html>Cloudflare</html>"),
        (403, "<html>Not from here</html>"),
        (500, {"message": "a gateway's words"}),
        (401, {"message": "No API key found in request"}),
        (200, "<html>All is well</html>"),
        (405, {"code": "25006", "message": "cannot execute INSERT in a read-only transaction"}),
        (404, {"code": "PGRST202", "message": "Could not find the function public.work in the schema cache"}),
        (400, {"code": "PGRST204", "message": "Could not find the 'x' column of 'turns' in the schema cache"}),
        (404, {"code": "42883", "message": "function auth.uid() does not exist"}),
        (403, {"code": "42501", "message": "permission denied for table turns"}),
        (500, {"code": "28P01", "message": "password authentication failed"}),
    ],
)
async def test_a_fault_is_retried_and_then_supabase_unavailable(
    project: Project, client: SupabaseClient, status: int, body: object
) -> None:
    project.answers[CALL] = (status, body)

    with pytest.raises(PlatformError) as failure:
        await client.call("work")

    assert failure.value.code is ErrorCode.SUPABASE_UNAVAILABLE
    assert failure.value.retry_after
    assert project.requests(CALL) == 2


async def test_a_call_that_must_not_be_repeated_is_not_retried(project: Project, client: SupabaseClient) -> None:
    project.answers[CALL] = (503, "away")
    with pytest.raises(PlatformError):
        await client.call("work", repeat=False)
    assert project.requests(CALL) == 1


async def test_the_answer_to_a_retry_is_returned(project: Project, client: SupabaseClient) -> None:
    def recovering(_: object) -> dict[str, str]:
        project.answers[CALL] = (200, {"outcome": "ok"})
        return {"code": "SUP", "message": "Error: away"}

    project.answers[CALL] = (500, recovering)

    assert await client.call("work") == {"outcome": "ok"}


async def test_an_unreachable_project_is_unavailable(project: Project, client: SupabaseClient) -> None:
    await project.close()
    with pytest.raises(PlatformError) as failure:
        await client.call("work")
    assert failure.value.code is ErrorCode.SUPABASE_UNAVAILABLE
    await project.open()


@pytest.mark.parametrize(
    ("code", "message", "meaning"),
    [
        ("22P05", "unsupported Unicode escape sequence", ErrorCode.INVALID_REQUEST),
        ("22021", "invalid byte sequence", ErrorCode.INVALID_REQUEST),
    ],
)
async def test_refusals_of_a_request_are_not_retried(
    project: Project, client: SupabaseClient, code: str, message: str, meaning: ErrorCode
) -> None:
    project.answers[CALL] = (400, {"code": code, "message": message})
    with pytest.raises(PlatformError) as refusal:
        await client.call("work")
    assert refusal.value.code is meaning
    assert project.requests(CALL) == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("23505", "duplicate key value violates unique constraint"),
        ("SUP", 'PostgresError: new row for relation "turns" violates check constraint "c"'),
        ("22P02", "invalid input syntax for type uuid"),
        ("PGRST102", "Empty or invalid json"),
    ],
)
async def test_an_unexpected_refusal_contains_no_row_values(
    project: Project, client: SupabaseClient, code: str, message: str
) -> None:
    details = "Failing row contains (a private message)."
    project.answers[CALL] = (400, {"code": code, "message": message, "details": details})

    with pytest.raises(SupabaseError, match=code) as refusal:
        await client.call("work")

    assert "private" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert project.requests(CALL) == 1


async def test_text_that_is_not_unicode_is_an_invalid_request(project: Project, client: SupabaseClient) -> None:
    with pytest.raises(PlatformError) as refusal:
        await client.call("work", text="\ud800")
    assert refusal.value.code is ErrorCode.INVALID_REQUEST
    assert project.seen == []


async def test_bad_input_never_opens_the_breaker(project: Project, client: SupabaseClient) -> None:
    project.answers[CALL] = (400, {"code": "22P05", "message": "NUL"})
    for _ in range(20):
        with pytest.raises(PlatformError):
            await client.call("work")
    assert not client.guard.breaker.is_open


async def test_many_cancelled_calls_do_not_exhaust_the_connection_pool(
    project: Project, client: SupabaseClient
) -> None:
    """As when a thousand clients reload their history and leave, or are refused, before the answer arrives."""
    project.answers[CALL] = (200, [])
    for moment in range(8):
        asking = [asyncio.create_task(client.call("work")) for _ in range(100)]
        for _ in range(5 * moment):
            await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    assert await client.call("work") == []


TOKEN_REFUSALS = [
    ("PGRST303", "JWT issued at future"),
    ("PGRST303", "JWT not yet valid"),
    ("PGRST303", "JWT expired"),
    ("PGRST303", "JWT not in audience"),
    ("PGRST301", "JWT expired"),
    ("PGRST301", "No suitable key or wrong key type"),
    ("PGRST302", "Anonymous access is disabled"),
    ("PGRST300", "Server lacks JWT secret"),
]
"""PostgREST's messages about a JWT."""

KEY_REFUSALS = [
    {"message": "Invalid API key", "hint": "Double check your Supabase `anon` or `service_role` API key."},
    {"message": "Unregistered API key"},
    {"message": "No API key found in request"},
    {"message": "Legacy API keys are disabled"},
    {"message": "Invalid authentication credentials"},
]
"""Gateways' messages about our key."""


def _read(client: SupabaseClient) -> Awaitable[list[dict[str, Any]]]:
    return client.read(SecretStr("a.b.c"), lambda rest: rest.from_("messages").select("id"))


def _operators_events(logged: list[MutableMapping[str, Any]]) -> list[tuple[str, str]]:
    return [(line["event"], line["about"]) for line in logged if line["log_level"] == "error"]


@pytest.mark.parametrize(("code", "message"), TOKEN_REFUSALS)
async def test_an_error_about_our_key_is_supabase_unavailable_and_logged(
    project: Project, client: SupabaseClient, code: str, message: str
) -> None:
    project.answers[CALL] = (401, {"code": code, "message": message, "details": None, "hint": None})
    with structlog.testing.capture_logs() as logged, pytest.raises(PlatformError) as failure:
        await client.call("work")
    assert failure.value.code is ErrorCode.SUPABASE_UNAVAILABLE
    assert project.requests(CALL) == 2
    assert _operators_events(logged) == [("supabase.key_refused", "SUPABASE_SERVICE_KEY")]


@pytest.mark.parametrize("body", KEY_REFUSALS, ids=lambda body: str(body["message"]))
async def test_a_key_that_a_gateway_refuses_is_named_only_in_the_log(
    project: Project, client: SupabaseClient, body: dict[str, str]
) -> None:
    project.answers |= {CALL: (401, body), MESSAGES: (401, body), HEALTH: (401, body)}
    for ask, setting in (
        (client.call("work"), "SUPABASE_SERVICE_KEY"),
        (_read(client), "SUPABASE_ANON_KEY"),
        (client.fetch(HEALTH), "SUPABASE_ANON_KEY"),
    ):
        client.faults = Faults()
        with structlog.testing.capture_logs() as logged, pytest.raises(PlatformError) as failure:
            await ask
        assert failure.value.code is ErrorCode.SUPABASE_UNAVAILABLE
        assert body["message"] not in failure.value.message
        assert _operators_events(logged) == [("supabase.key_refused", setting)]


async def test_a_key_that_was_refused_once_does_not_open_the_breaker(project: Project, client: SupabaseClient) -> None:
    def recovering(_: object) -> dict[str, str]:
        project.answers[CALL] = (200, {"outcome": "ok"})
        return {"code": "PGRST303", "message": "JWT issued at future"}

    project.answers[CALL] = (401, recovering)
    assert await client.call("work") == {"outcome": "ok"}


@pytest.mark.parametrize(
    ("code", "message", "meaning"),
    [
        ("PGRST303", "JWT issued at future", ErrorCode.SUPABASE_UNAVAILABLE),
        ("PGRST303", "JWT not yet valid", ErrorCode.SUPABASE_UNAVAILABLE),
        ("PGRST300", "Server lacks JWT secret", ErrorCode.SUPABASE_UNAVAILABLE),
        ("PGRST303", "JWT expired", ErrorCode.TOKEN_EXPIRED),
        ("PGRST301", "JWT expired", ErrorCode.TOKEN_EXPIRED),
        ("PGRST303", "JWT not in audience", ErrorCode.UNAUTHORIZED),
        ("PGRST301", "No suitable key or wrong key type", ErrorCode.UNAUTHORIZED),
        ("PGRST302", "Anonymous access is disabled", ErrorCode.UNAUTHORIZED),
    ],
)
async def test_a_users_token_is_expired_only_if_postgrest_answers_so(
    project: Project, client: SupabaseClient, code: str, message: str, meaning: ErrorCode
) -> None:
    project.answers[MESSAGES] = (401, {"code": code, "message": message})
    for _ in range(20):
        with pytest.raises(PlatformError) as refusal:
            await _read(client)
        assert refusal.value.code is meaning
        assert refusal.value.retryable is (meaning is ErrorCode.SUPABASE_UNAVAILABLE)
        if code == "PGRST300":
            return
    assert not client.guard.breaker.is_open, "one user's token keeps nobody else away"


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("25006", "supabase.read_only"),
        ("PGRST202", "supabase.schema_unknown"),
        ("PGRST204", "supabase.schema_unknown"),
        ("PGRST205", "supabase.schema_unknown"),
        ("42501", "supabase.refused"),
        ("0A000", "supabase.refused"),
    ],
)
async def test_an_operators_error_is_logged_once_a_minute_and_does_not_open_the_breaker(
    project: Project, client: SupabaseClient, code: str, event: str
) -> None:
    now = [0.0]
    client.faults = Faults(clock=lambda: now[0])
    project.answers[CALL] = (400, {"code": code, "message": "in PostgreSQL's words"})
    with structlog.testing.capture_logs() as logged:
        for now[0] in (0.0, 30.0, 59.0, 61.0):
            with pytest.raises(PlatformError) as failure:
                await client.call("work")
            assert failure.value.code is ErrorCode.SUPABASE_UNAVAILABLE
    assert _operators_events(logged) == [(event, code)] * 2
    assert not client.guard.breaker.is_open


async def dripping(request: web.Request) -> web.StreamResponse:
    """Sends a byte a second, and never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(1.0)


@virtual_time_with_sockets
async def test_no_request_lasts_longer_than_half_a_minute_even_if_its_body_keeps_coming() -> None:
    project = Project({HEALTH: (200, dripping)})
    await project.open()
    client = project.client()
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(600):
        with pytest.raises(httpx.ReadError):
            await client.http.get(f"{project.url}{HEALTH}")
    assert REQUEST_SECONDS <= loop.time() - began <= REQUEST_SECONDS + 3.0
    await client.aclose()
    await project.close()
