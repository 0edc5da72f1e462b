"""Deadline for the end of the process: a thread that logs the hanging tasks and threads, and exits.

Otherwise the platform kills a hanging process without a log. Exiting loses no accepted turn: it is in the database, and
another instance claims it when the lease has expired.
"""

import asyncio
import gc
import os
import sys
import threading
import traceback
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

GRACE_SECONDS: Final = 9.0
"""The time to close all resources after the drain. With the end of the interpreter it is below ten seconds."""
LOG_SECONDS: Final = 0.5
"""The timeout of writing the log line: the reader of the output may hang."""
EXIT_CODE: Final = 1
_MOST_TASKS: Final = 50
_DEEPEST: Final = 40
_FRAMES: Final = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED: Final = ("cr_await", "gi_yieldfrom", "ag_await")


def exit_within(seconds: float, loop: asyncio.AbstractEventLoop) -> threading.Timer:
    """Exit the process after `seconds`, unless the timer is cancelled. Call it in the loop's thread."""
    timer = threading.Timer(seconds, _exit, (seconds, loop, threading.get_ident()))
    timer.name, timer.daemon = "exit deadline", True
    timer.start()
    return timer


def _exit(seconds: float, loop: asyncio.AbstractEventLoop, thread: int) -> None:
    saying = threading.Thread(target=_log_hanging, args=(seconds, loop, thread), daemon=True)
    saying.start()
    saying.join(LOG_SECONDS)
    os._exit(EXIT_CODE)


def _log_hanging(seconds: float, loop: asyncio.AbstractEventLoop, thread: int) -> None:
    log.critical("server.hung", seconds=seconds, tasks=_tasks_of(loop), loop_at=_stack_of(thread), threads=_threads())


def _tasks_of(loop: asyncio.AbstractEventLoop) -> list[str]:
    try:
        tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
        return [f"{task.get_name()}: {' < '.join(await_stack(task.get_coro()))}" for task in tasks[:_MOST_TASKS]]
    except Exception as error:  # the loop's thread may change its tasks meanwhile
        return [f"not known: {error!r}"]


def await_stack(awaited: Any) -> list[str]:
    """The stack of a suspended coroutine, innermost function first."""
    places: list[str] = []
    while awaited is not None and len(places) < _DEEPEST:
        frame = _first(awaited, _FRAMES)
        if frame is not None:
            places.append(f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})")
            awaited = _first(awaited, _AWAITED)
        else:  # the awaitable of an asynchronous generator's step has no attribute for the generator
            awaited = next((one for one in gc.get_referents(awaited) if _first(one, _FRAMES) is not None), None)
    return places[::-1]


def _first(of: Any, names: tuple[str, ...]) -> Any:
    return next((value for name in names if (value := getattr(of, name, None)) is not None), None)


def _stack_of(thread: int) -> list[str]:
    frame = sys._current_frames().get(thread)
    if frame is None:
        return []
    return [f"{at.name} ({at.filename}:{at.lineno})" for at in reversed(traceback.extract_stack(frame))]


def _threads() -> list[str]:
    """The names of threads that the interpreter would wait for."""
    return [one.name for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
