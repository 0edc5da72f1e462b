"""What asyncio lacks for structured concurrency. Pure: knows no service and nothing of this server."""

import asyncio
from typing import Any, Final

REPEAT_SECONDS: Final = 2.0
"""Between two requests to end. A clean-up that awaits has so long before it is interrupted as well."""


async def cancel_and_wait(*tasks: "asyncio.Future[Any] | None", repeat: float = REPEAT_SECONDS) -> None:
    """Cancel the tasks and return when all of them have ended, however they end.

    Libraries can swallow a cancellation that arrives at the moment of their own timeout (`get_message` of redis-py),
    and the task then goes on for ever. So one that has not ended is cancelled again every `repeat` seconds.
    """
    running = {task for task in tasks if task is not None}
    pending = {task for task in running if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=repeat)
    for task in running:
        if not task.cancelled():
            task.exception()  # whoever waits for its result has it; nobody need be told that nobody asked
