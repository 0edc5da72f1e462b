"""The middlewares: request ids, problems, CORS, the log line and the metrics."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from multidict import CIMultiDict
from structlog.testing import capture_logs

from server.api import router
from server.http.security_headers import SECURITY_HEADERS
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.agent import Reply
from tests.unit.api.world import World

PREFLIGHT = {
    "Origin": "https://app.example.com",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, idempotency-key, last-event-id, prefer, content-type",
}


async def _broken(_request: web.Request) -> web.Response:
    raise RuntimeError("password=hunter2")


async def _broken_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)


async def _left(request: web.Request) -> web.StreamResponse:
    """A client that disconnects during the response: aiohttp cancels the handler."""
    response = web.StreamResponse()
    await response.prepare(request)
    raise asyncio.CancelledError


async def _several(_request: web.Request) -> web.Response:
    async def refuse() -> None:
        raise PlatformError(ErrorCode.LETTA_UNAVAILABLE, retry_after=0.2)

    async with asyncio.TaskGroup() as group:
        group.create_task(refuse())
        group.create_task(refuse())
    raise AssertionError


def _with_faults(app: web.Application) -> None:
    app.router.add_get("/test/broken", _broken)
    app.router.add_get("/test/broken-stream", _broken_stream)
    app.router.add_get("/test/several", _several)
    app.router.add_get("/test/left", _left)


@pytest.fixture
async def faulty() -> AsyncIterator[World]:
    async with World().serving(_with_faults) as world:
        yield world


async def test_a_request_id_is_generated_and_a_valid_one_reused(world: World) -> None:
    made = (await world.visitor.get("/health")).headers["X-Request-ID"]
    other = (await world.visitor.get("/health")).headers["X-Request-ID"]
    assert made != other
    kept = await world.visitor.get("/health", headers={"X-Request-ID": "trace.42_a-b"})
    assert kept.headers["X-Request-ID"] == "trace.42_a-b"


@pytest.mark.parametrize("offered", ["a b", "x" * 65, "{}", "é"])
async def test_an_invalid_request_id_is_replaced(world: World, offered: str) -> None:
    answer = await world.visitor.get("/health", headers={"X-Request-ID": offered})
    assert answer.headers["X-Request-ID"] != offered


async def test_an_unexpected_error_is_a_500_that_hides_its_cause_and_is_logged_once(faulty: World) -> None:
    with capture_logs() as lines:
        answer = await faulty.visitor.get("/test/broken")
    assert (answer.status, answer.code, answer.json["retryable"]) == (500, "internal_error", True)
    assert b"hunter2" not in answer.raw
    failures = [line for line in lines if line["log_level"] == "error"]
    assert [line["event"] for line in failures] == ["http.failed"]


async def test_an_error_after_the_headers_were_sent_ends_the_connection(faulty: World) -> None:
    async with faulty.http.get("/test/broken-stream") as response:
        assert response.status == 200
        with pytest.raises(Exception, match="payload"):
            await response.read()


async def test_concurrent_calls_that_fail_together_are_one_problem(faulty: World) -> None:
    answer = await faulty.visitor.get("/test/several")
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "letta_unavailable", "1")


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/v1/chat", "/api/v2/auth/me", "/api/v1/auth/me/", "/pages/../ops.py"]
)
async def test_an_unknown_path_is_a_404_problem(world: World, path: str) -> None:
    answer = await world.visitor.get(path)
    assert (answer.status, answer.code) == (404, "not_found")
    assert answer.headers["Content-Type"].startswith("application/problem+json")


async def test_a_wrong_method_is_405_with_an_allow_header(world: World) -> None:
    answer = await world.visitor.get("/api/v1/chat/message")
    assert (answer.status, answer.code, answer.headers["Allow"]) == (405, "method_not_allowed", "POST")
    answer = await world.visitor.request("DELETE", "/api/v1/user/profile")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET,PATCH")


async def test_a_preflight_allows_what_the_protocol_needs(world: World) -> None:
    answer = await world.visitor.request("OPTIONS", "/api/v1/chat/message", headers=PREFLIGHT)
    assert (answer.status, answer.raw) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    allowed = answer.headers["Access-Control-Allow-Headers"].lower()
    assert all(
        name in allowed for name in ("authorization", "content-type", "idempotency-key", "last-event-id", "prefer")
    )
    assert {"GET", "POST", "PATCH"} <= set(answer.headers["Access-Control-Allow-Methods"].split(", "))
    assert "Access-Control-Allow-Credentials" not in answer.headers


SDK_HEADERS = "apikey,authorization,baggage,content-type,sentry-trace,traceparent,tracestate,x-client-info,x-a"


async def test_a_page_may_send_the_headers_that_its_sdks_add(world: World) -> None:
    asked = {**PREFLIGHT, "Access-Control-Request-Headers": SDK_HEADERS}
    answer = await world.visitor.request("OPTIONS", "/api/v1/chat/message", headers=asked)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Headers"].split(", ") == SDK_HEADERS.split(",")
    assert "Access-Control-Request-Headers" in answer.headers["Vary"]


@pytest.mark.parametrize("asked", [None, "", " , ,", "*/*", "x y", "ключ"])
async def test_an_invalid_header_name_in_a_preflight_is_not_repeated(world: World, asked: str | None) -> None:
    headers = {name: value for name, value in PREFLIGHT.items() if name != "Access-Control-Request-Headers"}
    if asked is not None:
        headers["Access-Control-Request-Headers"] = asked
    answer = await world.visitor.request("OPTIONS", "/api/v1/chat/message", headers=headers)
    assert answer.status == 204
    assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
    assert asked is None or asked.strip(" ,") == "" or asked not in answer.headers["Access-Control-Allow-Headers"]


async def test_header_names_of_a_preflight_may_be_in_several_lines_and_any_case(world: World) -> None:
    headers = CIMultiDict({**PREFLIGHT, "Access-Control-Request-Headers": "APIKEY ,x-a"})
    headers.add("Access-Control-Request-Headers", "Traceparent")
    async with world.visitor.http.options("/api/v1/chat/message", headers=headers) as answer:
        assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Headers"] == "APIKEY, x-a, Traceparent"


async def test_every_method_of_every_route_passes_a_preflight(world: World) -> None:
    answer = await world.visitor.request("OPTIONS", "/api/v1/auth/login", headers=PREFLIGHT)
    assert {route.method for route in router.ROUTES} <= set(answer.headers["Access-Control-Allow-Methods"].split(", "))


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "http://localhost:3000", "https://["])
async def test_a_foreign_origin_gets_no_cors_headers(world: World, origin: str) -> None:
    preflight = await world.visitor.request("OPTIONS", "/api/v1/auth/me", headers={**PREFLIGHT, "Origin": origin})
    assert (preflight.status, preflight.code) == (403, "origin_not_allowed")
    answer = await world.visitor.get("/health", headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443"])
async def test_in_development_origins_of_this_machine_are_allowed(origin: str) -> None:
    async with World(environment="development", origins=()).serving() as world:
        answer = await world.visitor.get("/health", headers={"Origin": origin})
        assert answer.headers["Access-Control-Allow-Origin"] == origin


async def test_errors_and_streams_have_cors_headers_too(world: World) -> None:
    user, origin = await world.user(), {"Origin": "https://app.example.com"}
    refused = await world.visitor.get("/api/v1/auth/me", headers=origin)
    streamed = await user.post("/api/v1/chat/message", {"content": "hello"}, headers=origin)
    for answer in (refused, streamed):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
        assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
        assert answer.headers["X-Request-ID"]


async def test_each_request_is_logged_in_one_line_without_its_query(world: World) -> None:
    user = await world.user()
    with capture_logs() as lines:
        await user.get("/api/v1/chat/events?ticket=very-secret&after=nonsense")
        await world.visitor.get("/api/v1/chat/events?ticket=very-secret")
    requests = [line for line in lines if line["event"] == "http.request"]
    assert [line["status"] for line in requests] == [400, 401]
    assert [line["path"] for line in requests] == ["/api/v1/chat/events"] * 2
    assert "very-secret" not in repr(lines)


async def test_metrics_have_sessions_connections_and_turns(world: World) -> None:
    world.gateway.plan(Reply(words=("Hm",), stuck=True))
    user = await world.user()
    await user.post("/api/v1/chat/message", {"content": "hello"}, headers={"Prefer": "respond-async"})
    text = (await world.visitor.get("/metrics")).raw.decode()
    for line in ("chat_sessions 1.0", "chat_connections 0.0", "chat_running_turns 1.0", "chat_waiting_turns 0.0"):
        assert f"\n{line}\n" in text


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Authorization: Bearer \xff\xfe", 401),
        (b"Authorization: Bearer \xc3\xa9", 401),
        (b"Origin: \xff", 401),
        (b"X-Request-ID: \xff", 401),
        (b"X-Forwarded-For: \xff", 401),
    ],
)
async def test_headers_that_are_not_utf8_are_accepted(header: bytes, status: int) -> None:
    async with World(environment="development", origins=("*",)).serving() as world:
        assert world.http.port is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", world.http.port)
        writer.write(b"GET /api/v1/auth/me HTTP/1.1\r\nHost: test\r\nConnection: close\r\n" + header + b"\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in answer


async def test_metrics_count_requests_by_route_never_by_path(world: World) -> None:
    user = await world.user()
    for number in range(3):
        await user.get(f"/api/v1/chat/turns/{number}")
        await user.get(f"/nothing/{number}")
    text = (await world.visitor.get("/metrics")).raw.decode()
    assert 'chat_http_requests_total{method="GET",route="/api/v1/chat/turns/{turn_id}",status="404"} 3.0' in text
    assert 'chat_http_requests_total{method="GET",route="unknown",status="404"} 3.0' in text
    assert "chat_http_requests_open 1.0" in text


async def test_metrics_count_a_cancelled_stream_with_the_status_that_was_sent(faulty: World) -> None:
    async with faulty.http.get("/test/left") as response:
        assert response.status == 200
    text = (await faulty.visitor.get("/metrics")).raw.decode()
    assert 'chat_http_requests_total{method="GET",route="/test/left",status="200"} 1.0' in text


async def test_no_response_is_cacheable_not_even_an_error(faulty: World) -> None:
    user = await faulty.user()
    answers = [
        await user.get("/api/v1/auth/me"),
        await user.get("/api/v1/chat/history?limit=0"),
        await user.get("/nothing"),
        await user.patch("/api/v1/chat/message", {}),
        await user.post("/api/v1/auth/logout"),
        await user.post("/api/v1/chat/message", {"content": "hello", "stream": False}),
        await faulty.visitor.get("/api/v1/auth/me"),
        await faulty.visitor.get("/test/broken"),
        await faulty.visitor.get("/test/several"),
        await faulty.visitor.get("/metrics"),
        await faulty.visitor.get("/"),
    ]
    for answer in answers:
        [value] = answer.headers.getall("Cache-Control")  # type: ignore[attr-defined]
        assert value.split(", ")[0] == "no-store"


@pytest.mark.parametrize(("environment", "expected"), [("production", "max-age=31536000"), ("development", None)])
async def test_production_sends_strict_transport_security(environment: str, expected: str | None) -> None:
    async with World(environment=environment).serving() as world:
        for path in ("/health", "/nothing", "/", "/api/v1/auth/me"):
            assert (await world.visitor.get(path)).headers.get("Strict-Transport-Security") == expected


async def test_no_response_reveals_versions_of_the_server(world: World) -> None:
    for path in ("/health", "/nothing", "/api/v1/auth/me"):
        assert (await world.visitor.get(path)).headers["Server"] == "chat"


async def test_every_response_has_the_security_headers(faulty: World) -> None:
    user = await faulty.user()
    answers = [
        *[await faulty.visitor.get(path) for path in ("/health", "/nothing", "/", "/pages/docs.js", "/test/broken")],
        await user.get("/api/v1/auth/me"),
        await user.post("/api/v1/chat/message", {"content": "hello"}),  # a stream
        await faulty.visitor.request("OPTIONS", "/api/v1/auth/login", headers=PREFLIGHT),
    ]
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value or name == "Content-Security-Policy"
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


def test_the_security_headers_are_those_that_browsers_know() -> None:
    assert SECURITY_HEADERS["X-Content-Type-Options"] == "nosniff"
    assert SECURITY_HEADERS["Referrer-Policy"] == "no-referrer"
    assert SECURITY_HEADERS["X-Frame-Options"] == "DENY"
    assert "geolocation=()" in SECURITY_HEADERS["Permissions-Policy"]
    assert "frame-ancestors 'none'" in SECURITY_HEADERS["Content-Security-Policy"]


async def test_no_response_sets_a_cookie(world: World) -> None:
    credentials = {"email": "ann@example.com", "password": "correct horse battery"}
    for path in ("/api/v1/auth/register", "/api/v1/auth/login"):
        assert "Set-Cookie" not in (await world.visitor.post(path, credentials)).headers


@pytest.mark.parametrize("host", ["evil.example.com", "chat.example.com"])
async def test_the_host_header_makes_no_origin_the_servers_own(world: World, host: str) -> None:
    """A page of a domain that points to this server, as with DNS rebinding, is of a foreign origin."""
    headers = {"Host": host, "Origin": "https://evil.example.com"}
    answer = await world.visitor.get("/health", headers=headers)
    assert "Access-Control-Allow-Origin" not in answer.headers
    own = await world.visitor.get("/health", headers={"Host": host, "Origin": "https://chat.example.com"})
    assert own.headers["Access-Control-Allow-Origin"] == "https://chat.example.com"
