"""The exit deadline of a hanging process. Each test starts a process, which must exit by itself."""

import subprocess
import sys
from textwrap import dedent

import pytest

from server.app.exit_deadline import EXIT_CODE

ENDED_SECONDS = 300.0

PREAMBLE = """
import asyncio, os, signal, sys, threading, time
import uvloop
from server.app import exit_deadline
from server.cli import serve
from server.app.exit_deadline import exit_within
from server.observability.logs import configure_logging

configure_logging("production", "INFO")
exit_deadline.LOG_SECONDS = 120.0  # this process may wait for a processor
"""

SERVE = """
from aiohttp import web
from server.app.lifecycle import LIFECYCLE

class Settings:
    host, port, environment, drain_seconds, max_connections = "127.0.0.1", 0, "test", 0.2, 100

class Life:
    def started(self):
        os.kill(os.getpid(), signal.SIGTERM)
    async def drain(self, seconds):
        await {drain}

async def nothing(settings):
    pass

def set_deadline(seconds, loop):
    global passes
    assert seconds == Settings.drain_seconds + serve.GRACE_SECONDS
    passes = lambda: loop.call_soon_threadsafe(exit_within, 0.1, loop)

async def never(app=None):
    passes()
    try:
        await asyncio.Event().wait()
    finally:
        await never()

def hang():
    passes()
    threading.Event().wait()

def app(settings, diagnose):
    app = web.Application()
    app[LIFECYCLE] = Life()
    {wire}
    return app

serve.create_app, serve.check_at_start, serve.exit_within = app, nothing, set_deadline
uvloop.run(serve.run(Settings))
"""
"""The deadline passes as soon as the server hangs: however slow the machine is, that is what is logged."""


def _run(script: str) -> tuple[int, str]:
    command = [sys.executable, "-c", dedent(PREAMBLE) + dedent(script)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=ENDED_SECONDS)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("drain", "wire", "named"),
    [
        ("never()", "pass", "never"),
        ("nothing(0)", "app.on_cleanup.append(never)", "never"),
        ("nothing(0)", "app.on_cleanup.append(lambda app: asyncio.to_thread(hang))", "to_thread"),
    ],
    ids=["draining", "closing", "a thread"],
)
def test_a_hanging_server_logs_its_tasks_and_threads_and_exits(drain: str, wire: str, named: str) -> None:
    code, output = _run(SERVE.format(drain=drain, wire=wire))
    assert code == EXIT_CODE
    assert '"server.hung"' in output
    assert named in output


def test_a_server_that_ends_in_time_exits_with_0() -> None:
    code, output = _run(
        SERVE.format(drain="nothing(0)", wire="pass").replace(
            "set_deadline\n", "exit_within\nserve.GRACE_SECONDS = 600.0\n"
        )
    )
    assert code == 0
    assert '"server.stopped"' in output
    assert "server.hung" not in output


def test_a_blocked_loop_is_logged_with_its_stack() -> None:
    code, output = _run("""
        def stuck():
            exit_within(0.1, asyncio.get_running_loop())
            time.sleep(3600)

        async def main():
            stuck()

        uvloop.run(main())
    """)
    assert code == EXIT_CODE
    assert "stuck" in output


def test_a_thread_that_outlives_the_loop_is_logged() -> None:
    code, output = _run("""
        async def main():
            threading.Thread(target=time.sleep, args=(3600,), name="straggler").start()
            exit_within(0.1, asyncio.get_running_loop())

        uvloop.run(main())
    """)
    assert code == EXIT_CODE
    assert "straggler" in output


def test_an_output_that_is_not_read_does_not_delay_the_exit() -> None:
    reader = """
        async def main():
            os.set_blocking(1, True)
            full = b"x" * 65536
            os.set_blocking(1, False)
            try:
                while os.write(1, full):
                    pass
            except BlockingIOError:
                os.set_blocking(1, True)
            exit_deadline.LOG_SECONDS = 0.5
            exit_within(0.1, asyncio.get_running_loop())
            await asyncio.Event().wait()

        uvloop.run(main())
    """
    process = subprocess.Popen(
        [sys.executable, "-c", dedent(PREAMBLE) + dedent(reader)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.wait(ENDED_SECONDS) == EXIT_CODE
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
