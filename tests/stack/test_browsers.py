"""What a page of another origin may do, tried in a real browser."""

from playwright.async_api import Page

from tests.stack.running_stack import RunningStack


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
