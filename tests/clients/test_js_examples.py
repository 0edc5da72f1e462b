"""The JavaScript examples as they stand in `examples/`, on the real platform and in a real browser."""

import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Page, expect

from server.stack.environments import Node, NodePackages
from server.stack.layout import Layout
from tests.clients.js_package import DATA_DIR, ROOT, JsPackage
from tests.stack.chat_client import register
from tests.stack.running_stack import RunningStack
from tests.stack.team_app import PASSWORD, fresh_address

EXAMPLES = ROOT / "examples"
LOCAL_SERVER = "http://127.0.0.1:8080"
"""The server's address in the examples."""
NOT_COPIED = shutil.ignore_patterns("node_modules", "dist", "client", ".env")
REMEMBER = 'CALL memory_insert {"label": "human", "new_string": "Sails", "insert_line": -1}'


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[str]:
    """The origin at which these files are."""

    async def index(_: web.Request) -> web.FileResponse:
        return web.FileResponse(folder / "index.html")

    app = web.Application()
    app.router.add_get("/", index)
    app.router.add_static("/", folder)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
async def vite(js: JsPackage, stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The origin of examples/vite, type-checked and built."""
    app = tmp_path_factory.mktemp("examples") / "vite"
    shutil.copytree(EXAMPLES / "vite", app, ignore=NOT_COPIED)
    packages = NodePackages(Node(Layout.open(DATA_DIR, api_port=0)), "example-vite", EXAMPLES / "vite")
    await js.install_into(app, packages)
    variables = {
        "VITE_CHAT_URL": stack.url,
        "VITE_SUPABASE_URL": stack.env["SUPABASE_URL"],
        "VITE_SUPABASE_ANON_KEY": stack.env["SUPABASE_ANON_KEY"],
    }
    (app / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()), "utf-8")
    await js.run(str(js.node), "node_modules/typescript/bin/tsc", cwd=app)
    await js.run(str(js.node), "node_modules/vite/bin/vite.js", "build", cwd=app)
    async with served(app / "dist") as origin:
        yield origin


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Message").fill(text)
    await page.keyboard.press("Enter")


async def test_the_vite_app_signs_up_talks_remembers_stops_and_survives_a_reload(
    page: Page, vite: str, stack: RunningStack, http: aiohttp.ClientSession
) -> None:
    await page.goto(vite)
    await page.get_by_text("Create an account").click()
    await page.get_by_placeholder("Name").fill("Ada")
    await page.get_by_placeholder("E-mail").fill(fresh_address())
    await page.get_by_placeholder("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign up").click()
    reply = page.locator("article.assistant").last
    await say(page, REMEMBER)
    await expect(reply.locator(".tool")).to_have_attribute("data-state", "output-available", timeout=60_000)
    await expect(reply).to_contain_text("done:")
    await expect(reply).to_contain_text("tokens")

    gate = f"vite-{uuid.uuid4().hex}"
    await say(page, f"GATE {gate} 2 3")
    await expect(reply).to_contain_text("w0 w1", timeout=60_000)
    await page.reload()
    await expect(page.locator("article")).to_have_count(4)
    await expect(reply).to_contain_text("w0 w1")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    await stack.open_gate(http, gate)
    await say(page, "ECHO Still here")
    await expect(reply).to_contain_text("Still here", timeout=60_000)
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()


async def test_the_html_page_signs_up_talks_stops_retries_and_survives_a_reload(
    page: Page, js: JsPackage, stack: RunningStack, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    await js.packed()
    site = tmp_path / "html"
    shutil.copytree(EXAMPLES / "html", site, ignore=NOT_COPIED)
    shutil.copytree(js.folder / "dist" / "browser", site / "client")
    text = (site / "index.html").read_text("utf-8")
    assert LOCAL_SERVER in text
    (site / "index.html").write_text(text.replace(LOCAL_SERVER, stack.url), "utf-8")
    gate = f"html-{uuid.uuid4().hex}"
    async with served(site) as origin:
        await page.goto(origin)
        await page.get_by_placeholder("E-mail").fill(fresh_address())
        await page.get_by_placeholder("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Create an account").click()
        reply = page.locator("li.assistant").last
        await say(page, f"GATE {gate} 2 3")
        await expect(reply).to_contain_text("w0 w1", timeout=60_000)
        await page.reload()
        await expect(reply).to_contain_text("w0 w1")
        await page.get_by_role("button", name="Stop").click()
        await expect(reply.get_by_text("Retry")).to_be_visible()
        await stack.open_gate(http, gate)
        await reply.get_by_text("Retry").click()
        await expect(reply).to_contain_text("w0 w1 w2 w3 w4", timeout=60_000)
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("button", name="Sign in")).to_be_visible()


async def test_the_bot_answers_each_line_of_its_input(
    js: JsPackage, stack: RunningStack, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    ada = await register(http, stack.url)
    status, made = await ada.call("POST", "/user/api-keys", {"name": "bot", "scopes": ["read", "chat"]})
    assert status == 201, made
    bot = tmp_path / "bot"
    shutil.copytree(EXAMPLES / "bot", bot, ignore=NOT_COPIED)
    await js.install_into(bot)
    env = {"CHAT_URL": stack.url, "CHAT_KEY": made["key"]}
    output = await js.run(str(js.node), "bot.mjs", env=env, cwd=bot, text_in=f"ECHO First\n\n{REMEMBER}\n")
    assert output.startswith("First\n($"), output
    assert "[memory_insert]\ndone:" in output
