"""What asyncio lacks for structured concurrency. Pure: knows no service and nothing of this server."""

import asyncio
from typing import Any, Final

REPEAT_SECONDS: Final = 2.0
"""Between two requests to end. A clean-up that awaits has so long before it is interrupted as well."""


async def cancel_and_wait(*tasks: "asyncio.Future[Any] | None", repeat: float = REPEAT_SECONDS) -> None:
    """Cancel the tasks and return when all of them have ended, however they end.

    Libraries can swallow a cancellation that arrives at the moment of their own timeout (`get_message` of redis-py),
    and the task then never ends. So one that has not ended is cancelled again every `repeat` seconds.
    """
    running = {task for task in tasks if task is not None}
    pending = {task for task in running if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=repeat)
    for task in running:
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not warn of an exception that was never retrieved
