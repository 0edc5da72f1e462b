"""What people see when something of the platform fails, and that it passes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest
from playwright.async_api import Browser, expect
from playwright.async_api import Error as PlaywrightError

from tests.conftest import BROWSER_SECONDS, NewServer
from tests.console.person import People, people, signed_in
from tests.console.replies import WHOLE, HeldReply
from tests.faults.chaos import ChaosProxy
from tests.stack.chat_client import ChatUser, register
from tests.stack.commands import chat_users
from tests.stack.own_server import ServerProcess
from tests.stack.running_stack import RunningStack


@pytest.fixture
async def letta(stack: RunningStack) -> AsyncIterator[ChaosProxy]:
    """The way to Letta."""
    async with ChaosProxy(int(stack.env["LETTA_BASE_URL"].rsplit(":", 1)[1])) as line:
        yield line


@pytest.fixture
async def server(new_server: NewServer, letta: ChaosProxy) -> ServerProcess:
    """A server that may be killed, and whose Letta may be unavailable."""
    return await new_server(REDIS_URL=None, LETTA_BASE_URL=letta.url)


@pytest.fixture
async def own(browser: Browser, server: ServerProcess, language: str) -> AsyncIterator[People]:
    """The console of that server."""
    async with people(browser, server.url, language) as opened:
        yield opened


async def test_a_server_that_is_killed_in_mid_reply_loses_nothing(
    own: People, server: ServerProcess, stack: RunningStack, http: aiohttp.ClientSession
) -> None:
    person = await own.arrives(await register(http, server.url))
    held = HeldReply(stack, http)
    await person.says(held.text)
    await person.reads("w0 w1")
    server.kill()
    await person.sees(person.words["frame: No connection: trying again"])
    await person.reads("w0 w1")
    server.start()
    await server.ready()
    await held.goes_on()
    await person.reads(WHOLE)
    await person.says("ECHO and on")
    await person.reads("and on")
    await expect(person.replies).to_have_count(2)


async def test_a_reply_that_failed_says_so_and_succeeds_when_letta_is_back(
    own: People, server: ServerProcess, letta: ChaosProxy, http: aiohttp.ClientSession
) -> None:
    person = await own.arrives(await register(http, server.url))
    await person.says("ECHO before")
    await person.reads("before")
    await person.button("Stop the reply").wait_for(state="detached")
    person.watch.expect("503 agent/memory")
    await letta.refuse()
    for link in tuple(letta.links):
        link.reset()
    await person.says("ECHO while Letta is down")
    again = person.conversation.get_by_role("button", name=person.words["talk: Try again"]).last
    await again.wait_for()
    await expect(person.conversation.get_by_role("alert").last).to_be_visible()
    letta.listen()
    reply = person.replies.last.get_by_text("while Letta is down")
    async with asyncio.timeout(BROWSER_SECONDS):  # a breaker refuses some seconds longer
        while not await reply.is_visible():
            with suppress(PlaywrightError):  # the button goes when the reply begins
                await again.click(timeout=1_000)
            await expect(again.or_(reply).first).to_be_visible()
    await person.reads("while Letta is down")


async def test_a_used_up_budget_is_explained_and_a_new_one_lets_the_message_go(
    console: People, stack: RunningStack, ada: ChatUser
) -> None:
    person = await console.arrives(ada)
    await person.says("ECHO within")
    await person.reads("within")
    await chat_users(stack, "set-budget", ada.id, "--budget", "0.000001", "--period", "30d")
    await person.says("ECHO beyond")
    await person.sees(person.words["Not sent: your budget is used up"])
    await person.go("Usage")
    await person.sees(person.words["The budget is used up: messages wait until it is reset."])
    await person.go("Chat")
    await person.page.reload()
    await person.sees(person.words["Not sent: your budget is used up"])
    await chat_users(stack, "set-budget", ada.id, "--budget", "50")
    await person.messages.last.get_by_role("button", name=person.words["talk: Try again"]).click()
    await person.reads("beyond")
    await expect(person.messages).to_have_count(2)


async def test_an_expired_token_is_refreshed_without_a_word(console: People, ada: ChatUser) -> None:
    refused = ada.access_token[:-8] + "AAAAAAAA"
    person = await console.arrives(storage_state=await signed_in(ada, refused, seconds=-60))
    await person.is_connected()
    await person.says("ECHO refreshed")
    await person.reads("refreshed")


async def test_a_person_who_was_signed_out_elsewhere_is_told_and_returns_to_the_view_they_wanted(
    console: People, ada: ChatUser
) -> None:
    person = await console.arrives(ada, "usage")
    await expect(person.page.get_by_role("heading", level=1, name=person.words["Usage"])).to_be_visible()
    await person.is_connected()
    current = next(one for one in (await ada.get("/auth/sessions"))["data"] if one["current"])
    person.watch.expect("401 auth/refresh", "401 auth/sessions", "401 user/usage")
    await ada.call("DELETE", f"/auth/sessions/{current['id']}")
    await person.sees(person.words["You have been signed out"])
    await person.field("welcome: E-mail").fill(ada.email)
    await person.field("welcome: Password").fill(ada.password)
    await person.page.get_by_role("main").get_by_role("button", name=person.words["Sign in"], exact=True).click()
    await expect(person.page.get_by_role("heading", level=1, name=person.words["Usage"])).to_be_visible()
