"""People at browsers, in English; with CONSOLE_TESTS=all in Russian, too, and the tests of `full/`."""

import os
from collections.abc import AsyncIterator

import aiohttp
import pytest
from playwright.async_api import Browser

from tests.console.accessibility import Axe, axe_of
from tests.console.person import People, people
from tests.stack.chat_client import ChatUser, register
from tests.stack.running_stack import RunningStack

ALL = os.environ.get("CONSOLE_TESTS") == "all"
LANGUAGES = ("en", "ru") if ALL else ("en",)
collect_ignore = [] if ALL else ["full"]


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def console(browser: Browser, stack: RunningStack, language: str) -> AsyncIterator[People]:
    """The console of the stack."""
    async with people(browser, stack.url, language) as opened:
        yield opened


@pytest.fixture(scope="session")
async def axe(stack: RunningStack) -> Axe:
    return await axe_of(stack.data_dir)


@pytest.fixture
async def ada(stack: RunningStack, http: aiohttp.ClientSession) -> ChatUser:
    """A fresh user."""
    return await register(http, stack.url, "Ada")
