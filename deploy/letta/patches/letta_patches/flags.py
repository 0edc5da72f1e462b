"""Flags that are true during a call of a function, for a patch that concerns only what that function calls."""

import functools
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any


def flagged(flag: ContextVar[bool], function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The same function, with the flag set while it runs, in its task and those that it creates."""

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        token = flag.set(True)
        try:
            return await function(*args, **kwargs)
        finally:
            flag.reset(token)

    return call
