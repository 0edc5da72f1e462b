"""The client's calls: which key goes where, what is repeated, and whose fault an error is."""

import asyncio

import pytest
from pydantic import SecretStr

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.supabase_adapter.client import SupabaseClient, SupabaseError
from tests.unit.supabase.project import ANON, SERVICE, Project

CALL = "/rest/v1/rpc/work"


async def test_secret_keys_travel_in_the_apikey_header_only(project: Project, client: SupabaseClient) -> None:
    project.answers[CALL] = (200, {"outcome": "ok"})

    assert await client.call("work", user_id="u", limit=3) == {"outcome": "ok"}

    [request] = project.seen
    assert request.headers["apikey"] == SERVICE
    assert "Authorization" not in request.headers
    assert await request.json() == {"p_user_id": "u", "p_limit": 3}


async def test_legacy_keys_travel_as_bearer_tokens_too(project: Project) -> None:
    client = SupabaseClient(project.url, SecretStr("eyJ.anon.key"), SecretStr("eyJ.service.key"))
    project.answers[CALL] = (200, None)

    assert await client.call("work") is None
    await client.aclose()

    assert project.seen[0].headers["Authorization"] == "Bearer eyJ.service.key"


async def test_reads_go_with_the_users_token_and_the_publishable_key(project: Project, client: SupabaseClient) -> None:
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
    ],
)
async def test_a_service_that_cannot_answer_is_asked_again_then_unavailable(
    project: Project, client: SupabaseClient, status: int, body: object
) -> None:
    project.answers[CALL] = (status, body)

    with pytest.raises(PlatformError) as failure:
        await client.call("work")

    assert failure.value.code is ErrorCode.SUPABASE_UNAVAILABLE
    assert failure.value.retry_after
    assert project.requests(CALL) == 2


async def test_what_must_not_be_repeated_is_asked_once(project: Project, client: SupabaseClient) -> None:
    project.answers[CALL] = (503, "away")
    with pytest.raises(PlatformError):
        await client.call("work", repeat=False)
    assert project.requests(CALL) == 1


async def test_an_answer_after_a_failure_is_taken(project: Project, client: SupabaseClient) -> None:
    def recovering(_: object) -> dict[str, str]:
        project.answers[CALL] = (200, {"outcome": "ok"})
        return {"code": "SUP", "message": "Error: away"}

    project.answers[CALL] = (500, recovering)

    assert await client.call("work") == {"outcome": "ok"}


async def test_a_project_that_is_not_there_is_unavailable(project: Project, client: SupabaseClient) -> None:
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
        ("PGRST301", "No suitable key or wrong key type", ErrorCode.UNAUTHORIZED),
        ("PGRST301", "JWT expired", ErrorCode.TOKEN_EXPIRED),
        ("PGRST303", "JWT expired", ErrorCode.TOKEN_EXPIRED),
        ("PGRST302", "Anonymous access is disabled", ErrorCode.UNAUTHORIZED),
    ],
)
async def test_refusals_that_concern_the_request_are_not_repeated(
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
        ("42501", "permission denied for table turns"),
        ("23505", "duplicate key value violates unique constraint"),
        ("SUP", 'PostgresError: new row for relation "turns" violates check constraint "c"'),
        ("PGRST202", "Could not find the function"),
    ],
)
async def test_a_refusal_we_should_not_get_names_no_row_values(
    project: Project, client: SupabaseClient, code: str, message: str
) -> None:
    details = "Failing row contains (a private message)."
    project.answers[CALL] = (400, {"code": code, "message": message, "details": details})

    with pytest.raises(SupabaseError, match=code) as refusal:
        await client.call("work")

    assert "private" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert project.requests(CALL) == 1


async def test_text_that_is_no_unicode_is_an_invalid_request(project: Project, client: SupabaseClient) -> None:
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


async def test_a_crowd_that_gives_up_at_any_moment_leaves_the_project_reachable(
    project: Project, client: SupabaseClient
) -> None:
    """As when a thousand clients reload their history and leave, or are refused, before it comes."""
    project.answers[CALL] = (200, [])
    for moment in range(8):
        asking = [asyncio.create_task(client.call("work")) for _ in range(100)]
        for _ in range(5 * moment):
            await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    assert await client.call("work") == []
