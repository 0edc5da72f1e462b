"""The end of the process, whatever hangs: a thread that logs what has not ended, and exits.

A platform kills a process that does not end, and then no log says why. Leaving loses nothing of an accepted turn: it
is in the database, and its lease runs out.
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
"""What an instance has to close everything once it has drained. With the interpreter's own end it is below ten."""
LOG_SECONDS: Final = 0.5
"""How long the line may take to be written: the reader of our output may be what hangs."""
EXIT_CODE: Final = 1
_MOST_TASKS: Final = 50
_DEEPEST: Final = 40
_FRAMES: Final = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED: Final = ("cr_await", "gi_yieldfrom", "ag_await")


def leave_within(seconds: float, loop: asyncio.AbstractEventLoop) -> threading.Timer:
    """End the process after `seconds`, unless it has ended or the timer is cancelled. Call it in the loop's thread."""
    timer = threading.Timer(seconds, _leave, (seconds, loop, threading.get_ident()))
    timer.name, timer.daemon = "exit deadline", True
    timer.start()
    return timer


def _leave(seconds: float, loop: asyncio.AbstractEventLoop, thread: int) -> None:
    saying = threading.Thread(target=_say_what_hangs, args=(seconds, loop, thread), daemon=True)
    saying.start()
    saying.join(LOG_SECONDS)
    os._exit(EXIT_CODE)


def _say_what_hangs(seconds: float, loop: asyncio.AbstractEventLoop, thread: int) -> None:
    log.critical("server.hung", seconds=seconds, tasks=_tasks_of(loop), loop_at=_stack_of(thread), threads=_threads())


def _tasks_of(loop: asyncio.AbstractEventLoop) -> list[str]:
    try:
        tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
        return [f"{task.get_name()}: {' < '.join(where(task.get_coro()))}" for task in tasks[:_MOST_TASKS]]
    except Exception as error:  # another thread's tasks may change under our eyes: less is said then
        return [f"not known: {error!r}"]


def where(awaited: Any) -> list[str]:
    """The functions in which a suspended coroutine waits, innermost first."""
    places: list[str] = []
    while awaited is not None and len(places) < _DEEPEST:
        frame = _first(awaited, _FRAMES)
        if frame is not None:
            places.append(f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})")
            awaited = _first(awaited, _AWAITED)
        else:  # a step of an asynchronous generator knows its generator, and does not say so
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
    """Those that the interpreter would wait for."""
    return [one.name for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
