"""The JavaScript client in a real browser: tabs that share a connection, and the pages of its README as they stand
there."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import BrowserContext, Page, WebSocket, expect

from server.protocol.codes import ErrorCode
from server.protocol.shapes import TurnError
from tests.clients.js_package import SOURCE, JsPackage
from tests.fakes.agent import Reply, Tool
from tests.unit.api.test_over_budget import set_limit
from tests.unit.api.world import PASSWORD, Client, World

PRETENDED = "https://chat.example.com"
"""The server's address in the README."""
TAB = """async ({ url, token }) => {
    const { createChat } = await import("/client/chat.js");
    window.chat = createChat({ url, getToken: () => token });
}"""
PATIENT = """const { setTimeout: later } = window;
window.setTimeout = (act, after, ...rest) => later(act, after === 2_000 ? 60_000 : after, ...rest);"""
"""Has a tab wait for the others longer than the two seconds after which one that does not answer counts as frozen: on a
busy machine it need not be."""
APP = {"/app": '<!doctype html><title>app</title><div id="root"></div><script src="/app.js"></script>'}
SHOWN = "() => window.chat.state.messages.map(({ text, status }) => [text, status])"


def snippet(kind: str) -> str:
    """The README's code block of this kind."""
    found = re.search(
        rf"^```\w+ {kind}\n(.*?)^```$", (SOURCE / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found, kind
    return found[1]


@pytest.fixture(scope="module")
async def built(js: JsPackage) -> Path:
    """`dist/browser`."""
    await js.run(str(js.node), "scripts/build.mjs")
    return js.folder / "dist" / "browser"


@asynccontextmanager
async def site(built: Path, pages: dict[str, str]) -> AsyncIterator[tuple[str, web.Application]]:
    """A site with these pages, and the client under `/client`. Its address."""
    app = web.Application()
    app.router.add_static("/client", built)

    async def page(request: web.Request) -> web.Response:
        kind = "text/javascript" if request.path.endswith(".js") else "text/html"
        return web.Response(text=pages.get(request.path, ""), content_type=kind)

    app.router.add_get("/{path:.*}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://localhost:{runner.addresses[0][1]}", app
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving(built: Path, pages: dict[str, str], page: Page) -> AsyncIterator[tuple[World, str, str]]:
    """A server, its address, and the address of a site that it allows. `PRETENDED` in pages is the server. In the end
    the browser's tabs are closed first, since the server would wait for their connections."""
    own: dict[str, str] = {"/": "<!doctype html><title>app</title>"}
    async with site(built, own) as (origin, _), World(origins=(origin,)).serving() as world:
        url = str(world.http.make_url("/")).rstrip("/")
        own.update({path: text.replace(PRETENDED, url) for path, text in pages.items()})
        try:
            yield world, url, origin
        finally:
            for tab in page.context.pages:
                await tab.close()


class Tabs:
    """Tabs of one user, and the WebSockets that they have opened."""

    def __init__(self, context: BrowserContext, url: str, origin: str, user: Client) -> None:
        self.context, self.url, self.origin, self.user = context, url, origin, user
        self.sockets: list[WebSocket] = []

    async def open(self) -> Page:
        page = await self.context.new_page()
        page.on("websocket", lambda socket: self.sockets.append(socket))  # noqa: PLW0108 - Playwright marks the handler
        await page.goto(self.origin)
        await page.evaluate(TAB, {"url": self.url, "token": self.user.token})
        await page.wait_for_function("() => window.chat.state.connection === 'online'")
        return page


async def shows(page: Page, *messages: tuple[str, str]) -> None:
    expected = [list(message) for message in messages]
    await page.wait_for_function(f"expected => JSON.stringify(({SHOWN})()) === JSON.stringify(expected)", arg=expected)


async def test_tabs_share_one_connection_and_the_next_takes_it_over_when_its_tab_closes(
    page: Page, built: Path
) -> None:
    async with serving(built, {}, page) as (world, url, origin):
        world.gateway.plan(Reply.of("Hi Ada"))
        await page.context.add_init_script(PATIENT)
        tabs = Tabs(page.context, url, origin, await world.user())
        first = await tabs.open()
        second = await tabs.open()
        await second.evaluate("() => window.chat.send('Hello')")
        for tab in (first, second):
            await shows(tab, ("Hello", "sent"), ("Hi Ada", "complete"))
        assert len(tabs.sockets) == 1
        third = await tabs.open()
        await shows(third, ("Hello", "sent"), ("Hi Ada", "complete"))
        await first.close()
        world.gateway.plan(Reply.of("Still here"))
        await third.evaluate("() => window.chat.send('And now?')")
        for tab in (second, third):
            await shows(
                tab, ("Hello", "sent"), ("Hi Ada", "complete"), ("And now?", "sent"), ("Still here", "complete")
            )
        assert len(tabs.sockets) == 2


async def test_a_tab_takes_the_connection_over_from_one_that_the_browser_has_frozen(page: Page, built: Path) -> None:
    async with serving(built, {}, page) as (world, url, origin):
        tabs = Tabs(page.context, url, origin, await world.user())
        frozen = await tabs.open()
        devtools = await page.context.new_cdp_session(frozen)
        await devtools.send("Debugger.enable")
        await devtools.send("Debugger.pause")  # it stops in its next step, and answers nobody
        second = await tabs.open()
        world.gateway.plan(Reply.of("Hi"))
        await second.evaluate("() => window.chat.send('Hello')")
        await shows(second, ("Hello", "sent"), ("Hi", "complete"))
        await devtools.send("Debugger.resume")
        await shows(frozen, ("Hello", "sent"), ("Hi", "complete"))


async def test_every_tab_learns_that_the_account_is_closed(page: Page, built: Path) -> None:
    async with serving(built, {}, page) as (world, url, origin):
        tabs = Tabs(page.context, url, origin, await world.user())
        pages = [await tabs.open(), await tabs.open(), await tabs.open()]
        assert (await tabs.user.delete("/api/v1/user")).status == 204
        for tab in pages:
            await tab.wait_for_function("() => window.chat.state.connection === 'closed'")
            assert await tab.evaluate("() => window.chat.state.error.retryable") is False


async def test_tabs_of_different_users_share_nothing(page: Page, built: Path) -> None:
    async with serving(built, {}, page) as (world, url, origin):
        ada = Tabs(page.context, url, origin, await world.user())
        grace = Tabs(page.context, url, origin, await world.user())
        first, second = await ada.open(), await grace.open()
        await first.evaluate("() => window.chat.send('Mine')")
        await shows(first, ("Mine", "sent"), ("You said: Mine", "complete"))
        await shows(second)
        assert (len(ada.sockets), len(grace.sockets)) == (1, 1)


async def bundled(js: JsPackage, kind: str) -> str:
    """A React app of the README as one script, type-checked with the types that are published."""
    app = js.folder / "readme" / f"{kind}.tsx"
    app.parent.mkdir(exist_ok=True)
    app.write_text(snippet(kind), "utf-8")
    tsc = (
        "node_modules/typescript/bin/tsc",
        "--noEmit",
        "--ignoreConfig",
        "--strict",
        "--jsx",
        "react-jsx",
        "--module",
        "nodenext",
    )
    await js.run(str(js.node), *tsc, "--target", "es2022", "--skipLibCheck", str(app))
    return await js.run("node_modules/.bin/esbuild", str(app), "--bundle", "--format=iife", "--jsx=automatic")


async def test_the_readmes_react_app_signs_in_streams_stops_retries_and_survives_a_reload(
    page: Page, built: Path, js: JsPackage
) -> None:
    async with serving(built, APP | {"/app.js": await bundled(js, "app")}, page) as (world, _, origin):
        await world.visitor.post(
            "/api/v1/auth/register", {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}
        )
        world.gateway.plan(Reply(words=("Once ", "upon ", "a time"), reasoning=("A tale.",), tools=(Tool("search"),)))
        await page.goto(f"{origin}/app")
        await page.fill("[name=email]", "ada@example.com")
        await page.fill("[name=password]", "not the password")
        await page.click("text=Sign in")
        await expect(page.locator("[role=alert]")).not_to_be_empty()
        await page.fill("[name=password]", PASSWORD)
        await page.click("text=Sign in")
        await page.fill("[placeholder=Message]", "Tell me a story")
        await page.keyboard.press("Enter")
        reply = page.locator("article.assistant").last
        await expect(reply).to_contain_text("search: success")
        await expect(reply).to_contain_text("Once upon a time")
        await expect(reply).to_have_attribute("data-status", "complete")

        world.gateway.plan(Reply(words=("Twice ",), tools=(Tool("note"),), stuck=True))
        await page.fill("[placeholder=Message]", "Another")
        await page.keyboard.press("Enter")
        await expect(reply).to_contain_text("Twice")
        await page.reload()
        await expect(reply).to_contain_text("Twice")
        await expect(reply).to_contain_text("note: success")
        for part in ("A tale.", "search: success", "Once upon a time"):
            await expect(page.locator("article.assistant").first).to_contain_text(part)
        await page.click("text=Stop")
        await expect(reply).to_have_attribute("data-status", "partial")
        world.gateway.plan(Reply.of("Thrice"))
        await reply.get_by_text("Retry").click()
        await expect(reply).to_have_text("Thrice")
        await page.click("text=Sign out")
        await expect(page.locator("[name=email]")).to_be_visible()


async def test_the_ai_sdks_hook_streams_stops_regenerates_resumes_and_shows_other_devices(
    page: Page, built: Path, js: JsPackage
) -> None:
    async with serving(built, APP | {"/app.js": await bundled(js, "ai")}, page) as (world, _, origin):
        user = await world.user()
        await user.say("Hello from before")
        await page.goto(origin)
        await page.evaluate("token => localStorage.setItem('token', token)", user.token)
        await page.goto(f"{origin}/app")
        articles = page.locator("article")
        await expect(articles).to_contain_text(["Hello from before", "You said: Hello from before"])

        words = ("Once ", "upon ", "a time")
        world.gateway.plan(
            Reply(words=words, reasoning=("A tale.",), tools=(Tool("search"), Tool("note", status="error")))
        )
        await page.fill("[placeholder=Message]", "Tell me a story")
        await page.keyboard.press("Enter")
        await expect(articles).to_have_count(4)
        parts = ("A tale.", "search: output-available", "note: output-error", "Once upon a time", "$")
        for part in parts:
            await expect(articles.last).to_contain_text(part)

        world.gateway.plan(Reply(words=("Twice ",), stuck=True))
        await page.fill("[placeholder=Message]", "Another")
        await page.keyboard.press("Enter")
        await expect(articles.last).to_contain_text("Twice")
        await page.reload()
        await expect(articles).to_have_count(6)
        for part in parts:
            await expect(articles.nth(3)).to_contain_text(part)
        await expect(articles.last).to_contain_text("Twice")
        await page.click("text=Stop")
        await expect(page.locator("text=Stop")).to_have_count(0)

        failure = TurnError(ErrorCode.MODEL_ERROR, "The language model failed to answer.", retryable=True)
        world.gateway.plan(Reply(words=("Hm",), error=failure), Reply.of("Now it works"))
        await page.fill("[placeholder=Message]", "Will it fail?")
        await page.keyboard.press("Enter")
        await expect(page.locator("[role=alert]")).to_contain_text("The language model failed to answer.")
        await page.click("text=Again")
        await expect(articles.last).to_contain_text("Now it works")

        await user.say("From my phone")
        await expect(articles.last).to_contain_text("You said: From my phone")

        set_limit(world, user, "0.002")
        await user.get("/api/v1/user/usage")  # refreshes the budget from LiteLLM
        await page.fill("[placeholder=Message]", "Too dear")
        await page.keyboard.press("Enter")
        await expect(page.locator("[role=alert]")).to_contain_text("budget")
        set_limit(world, user, "5")
        world.seconds += 60
        await page.click("text=Again")
        await expect(articles.last).to_contain_text("You said: Too dear")
        await page.reload()
        await expect(articles.last).to_contain_text("You said: Too dear")

        sent = [run.messages[-1].content for run in world.gateway.sent]
        assert [text for text in sent if "Tell me a story" in text] == ["Tell me a story"]


async def test_the_readmes_page_without_a_build_shows_the_conversation(page: Page, built: Path) -> None:
    async with serving(built, {"/page": snippet("page")}, page) as (world, _, origin):
        user = await world.user()
        await page.goto(origin)
        await page.evaluate("token => localStorage.setItem('token', token)", user.token)
        await page.goto(f"{origin}/page")
        await page.fill("#text", "Hello")
        await page.keyboard.press("Enter")
        await expect(page.locator("#messages")).to_contain_text("assistant: You said: Hello")


async def test_the_readmes_bot_prints_a_reply(js: JsPackage, built: Path) -> None:
    bot = js.folder / "readme" / "bot.ts"
    bot.parent.mkdir(exist_ok=True)
    bot.write_text(snippet("bot"), "utf-8")
    await js.run(
        "node_modules/.bin/esbuild", str(bot), "--bundle", "--format=esm", "--platform=node", "--outfile=readme/bot.mjs"
    )
    async with World().serving() as world:
        user = await world.user()
        url = str(world.http.make_url("/")).rstrip("/")
        output = await js.run(str(js.node), "readme/bot.mjs", env={"CHAT_URL": url, "CHAT_TOKEN": str(user.token)})
    assert output.startswith("You said: What do you know about me?"), output
