"""Users of the real platform: registered once where tests only need some user, fresh ones where they change things."""

from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from tests.stack.chat_client import ChatUser, register
from tests.stack.running_stack import RunningStack

NewUser = Callable[..., Awaitable[ChatUser]]


@pytest.fixture
async def new_user(stack: RunningStack, http: aiohttp.ClientSession) -> NewUser:
    """Registers a user with an e-mail address of its own; `name` is optional."""

    async def make(name: str = "Ada") -> ChatUser:
        return await register(http, stack.url, name)

    return make


@pytest.fixture
async def ada(new_user: NewUser) -> ChatUser:
    """A fresh user."""
    return await new_user("Ada")
