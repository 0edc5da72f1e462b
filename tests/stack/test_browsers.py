"""Pages of other origins, in a real browser."""

from typing import Any

import aiohttp
from playwright.async_api import Page

from tests.stack.chat_client import register
from tests.stack.running_stack import RunningStack
from tests.unit.streaming.server_fixture import StreamingServer

SOCKET = """([url, protocols]) => new Promise(done => {
  const socket = protocols ? new WebSocket(url, protocols) : new WebSocket(url), frames = [];
  socket.onmessage = ({ data }) => {
    frames.push(JSON.parse(data));
    if (frames[0].type === "ready") socket.close();
  };
  socket.onclose = ({ code, reason, wasClean }) =>
    done({ first: frames[0], protocol: socket.protocol, code, reason, wasClean });
})"""


async def test_a_page_of_another_origin_reads_the_servers_answers(
    stack: RunningStack, page: Page, web_app: str
) -> None:
    await page.goto(web_app)

    answer = await page.evaluate(
        "async url => { const r = await fetch(url); return [r.status, r.headers.get('X-Request-ID')]; }",
        f"{stack.url}/api/v1/auth/me",
    )

    status, request_id = answer
    assert status == 401
    assert request_id


async def test_a_page_sends_the_headers_of_its_tracing_and_of_supabase_js(
    stack: RunningStack, page: Page, web_app: str
) -> None:
    await page.goto(web_app)

    status = await page.evaluate(
        """async ([url, names]) => {
          const headers = Object.fromEntries(names.map(name => [name, "1"]));
          return (await fetch(url, { method: "POST", headers, body: "{}" })).status;
        }""",
        [
            f"{stack.url}/api/v1/chat/message",
            ["traceparent", "tracestate", "sentry-trace", "baggage", "apikey", "x-client-info", "x-datadog-trace-id"],
        ],
    )

    assert status == 401


async def _socket(page: Page, stack: RunningStack, protocols: list[str] | None = None, query: str = "") -> Any:
    url = f"{stack.url.replace('http', 'ws')}/api/v1/chat/stream{query}"
    return await page.evaluate(SOCKET, [url, protocols])


async def test_a_page_signs_in_on_a_socket_by_subprotocol(
    stack: RunningStack, page: Page, web_app: str, http: aiohttp.ClientSession
) -> None:
    ada = await register(http, stack.url)
    await page.goto(web_app)

    outcome = await _socket(page, stack, ["chat.v1", f"bearer.{ada.access_token}"])

    assert (outcome["first"]["type"], outcome["first"]["user_id"]) == ("ready", ada.id)
    assert outcome["protocol"] == "chat.v1"


async def test_a_page_reads_why_its_socket_is_refused(stack: RunningStack, page: Page, web_app: str) -> None:
    await page.goto(web_app)

    refusals = {
        "a forged token": await _socket(page, stack, ["chat.v1", "bearer.forged"]),
        "a forged ticket": await _socket(page, stack, query="?ticket=forged"),
        "another subprotocol": await _socket(page, stack, ["x"]),
        "no cursor": await _socket(page, stack, query="?after=nope"),
    }

    assert {
        name: (refusal["first"]["code"], refusal["code"], refusal["reason"]) for name, refusal in refusals.items()
    } == {
        "a forged token": ("unauthorized", 4500, "unauthorized"),
        "a forged ticket": ("unauthorized", 4500, "unauthorized"),
        "another subprotocol": ("invalid_request", 4501, "protocol_error"),
        "no cursor": ("invalid_cursor", 4501, "protocol_error"),
    }
    assert all(refusal["wasClean"] for refusal in refusals.values())


async def test_a_page_of_a_foreign_origin_reads_why_it_is_refused(page: Page, web_app: str) -> None:
    """Of a server that allows pages of other machines, as one in production does."""
    async with StreamingServer() as server:
        await page.goto(web_app)

        refusal = await page.evaluate(SOCKET, [f"ws://127.0.0.1:{server.port}/stream", ["chat.v1"]])

    assert (refusal["first"]["code"], refusal["code"], refusal["wasClean"]) == ("origin_not_allowed", 4501, True)
