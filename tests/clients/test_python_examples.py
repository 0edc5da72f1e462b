"""The examples in Python and the shell, as somebody would run them, against this server with in-memory services."""

import asyncio
import re
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Page, expect

from tests.clients.processes import run
from tests.clients.python_package import SOURCE
from tests.fakes.agent import Reply, Tool
from tests.stack.chat_client import TIMEOUT
from tests.stack.running_stack import free_port
from tests.unit.api.world import PASSWORD, World

EXAMPLES = Path(__file__).parents[2] / "examples"
EMAIL = "ada@example.com"
SECONDS = 120
"""A generous limit of a start."""
END_SECONDS = 10


@pytest.fixture(scope="module")
async def chainlit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, with its packages and the client in `venv`."""
    folder = tmp_path_factory.mktemp("chainlit") / "app"
    shutil.copytree(EXAMPLES / "chainlit", folder)
    interpreter = str(folder / "venv" / "bin" / "python")
    await run("uv", "venv", "--quiet", "--python", sys.executable, "venv", cwd=folder)
    packages = ("-r", "requirements.txt", str(SOURCE))
    await run("uv", "pip", "install", "--quiet", "--python", interpreter, *packages, cwd=folder)
    return folder


async def answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(url):
            return True
    except aiohttp.ClientConnectionError:
        return False


@asynccontextmanager
async def running(app: Path, server: str) -> AsyncIterator[str]:
    """The app's address, once it answers."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(str(app / "venv" / "bin" / "chainlit"), "run", "app.py", "--headless", "--host", "127.0.0.1"),
        *("--port", str(port)),
        cwd=app,
        env={"PATH": str(app / "venv" / "bin"), "HOME": str(app), "CHAT_URL": server, "CHAINLIT_AUTH_SECRET": "s" * 64},
        stdout=PIPE,
        stderr=STDOUT,
    )
    assert process.stdout is not None
    output = ""
    try:
        async with asyncio.timeout(SECONDS):
            while "Your app is available" not in output:
                line = await process.stdout.readline()
                assert line, output
                output += line.decode()
            url = f"http://127.0.0.1:{port}"
            while not await answers(url):  # noqa: ASYNC110 - it says so before it listens
                await asyncio.sleep(0.1)
        yield url
    finally:
        process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
        if process.returncode is None:  # uvicorn waits for requests that a failed test has left
            process.kill()
            await process.wait()


async def test_the_chainlit_app_signs_in_streams_with_tools_and_shows_the_history_after_a_reload(
    page: Page, chainlit: Path
) -> None:
    async with World().serving() as world, running(chainlit, str(world.http.make_url("/")).rstrip("/")) as url:
        async with aiohttp.ClientSession() as http:
            body = {"email": EMAIL, "password": PASSWORD, "name": "Ada"}
            async with http.post(world.http.make_url("/api/v1/auth/register"), json=body) as answer:
                assert answer.status == 201
        world.gateway.plan(Reply.of("Noted, Ada.", tools=(Tool("memory_insert"),)))
        await page.goto(url)
        await page.fill("#email", EMAIL)
        await page.fill("#password", "wrong password")
        await page.keyboard.press("Enter")
        await expect(page.locator("[role=alert], .text-destructive, .alert").first).to_be_visible()
        await page.fill("#password", PASSWORD)
        await page.keyboard.press("Enter")
        await page.locator("#chat-input").click()
        async with asyncio.timeout(TIMEOUT):
            while not world.hub.counts["connections"]:  # noqa: ASYNC110 - Chainlit may lose what is sent before
                await asyncio.sleep(0.1)
        await page.keyboard.type("I like green tea")
        await page.locator("#chat-submit").click()
        await expect(page.get_by_text("Noted, Ada.")).to_be_visible()
        await expect(page.get_by_text("memory_insert")).to_be_visible()
        await page.reload()
        await expect(page.get_by_text("I like green tea")).to_be_visible()
        await expect(page.get_by_text("Noted, Ada.")).to_be_visible()


async def test_the_curl_example_streams_a_reply_repeats_it_for_nothing_and_shows_the_history() -> None:
    async with World().serving() as world:
        env = {"CHAT_URL": str(world.http.make_url("/")).rstrip("/"), "CHAT_PASSWORD": PASSWORD}
        output = await run("bash", str(EXAMPLES / "curl.sh"), 'What is "green" tea?', cwd=EXAMPLES, env=env)
        assert len(world.gateway.sent) == 1
    events = re.findall(r"^event: (\S+)", output, re.MULTILINE)
    assert events[0] in ("turn.queued", "turn.started")
    assert "message.delta" in events
    assert events[-1] == "turn.completed"
    assert '\n0.002\n{"data":' in output
    assert r"You said: What is \"green\" tea?" in output.partition('{"data":')[2]
