"""The lock and the recorded state of `chat up`, and the commands that use them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from server.stack import control, instance
from server.stack.errors import StackError
from server.stack.instance import ServiceState, State
from server.stack.layout import Layout
from tests.unit.stack.small_services import wait_until_gone

HOLD = """
import signal, sys
from pathlib import Path
from server.stack import instance
with instance.held_lock(Path({root!r})):
    print("held", flush=True)
    signal.sigwait([signal.SIGTERM]) if {polite} else signal.pause()
"""


@contextmanager
def another_chat_up(layout: Layout, polite: bool = True) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the data directory's lock; it ends on SIGTERM only if `polite`."""
    script = HOLD.format(root=str(layout.root), polite=polite)
    prelude = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
    with subprocess.Popen([sys.executable, "-c", prelude + script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def sleeping_process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def recorded(process: subprocess.Popen[bytes], name: str = "letta") -> ServiceState:
    return ServiceState(name, 21000, State.RUNNING, process.pid, instance.start_time(process.pid))


def test_a_second_chat_up_is_refused_with_the_pid_of_the_first(layout: Layout) -> None:
    with (
        another_chat_up(layout) as first,
        pytest.raises(StackError, match=rf"already running .*process {first.pid}"),
        instance.held_lock(layout.root),
    ):
        pass


def test_the_lock_of_a_killed_chat_up_is_free(layout: Layout) -> None:
    with another_chat_up(layout) as first:
        assert instance.running_pid(layout.root) == first.pid
        first.kill()
        first.wait()
        assert instance.running_pid(layout.root) is None
        with instance.held_lock(layout.root):
            pass


def test_processes_left_by_a_killed_chat_up_are_killed(layout: Layout) -> None:
    with sleeping_process() as orphan:
        instance.write_state(layout.root, [recorded(orphan)])
        assert instance.kill_orphans(layout.root) == ["letta"]
        orphan.wait()
        assert wait_until_gone(orphan.pid)


def test_a_process_with_a_reused_pid_is_not_killed(layout: Layout) -> None:
    with sleeping_process() as other:
        state = recorded(other)
        assert state.started is not None
        instance.write_state(layout.root, [ServiceState("letta", 1, State.RUNNING, other.pid, state.started - 1)])
        assert instance.kill_orphans(layout.root) == []
        assert other.poll() is None


def test_status_shows_pid_port_state_and_memory(layout: Layout) -> None:
    with another_chat_up(layout), sleeping_process() as process:
        instance.write_state(layout.root, [recorded(process)])
        (row,) = control.status(layout.root)
    assert (row.name, row.pid, row.port, row.state) == ("letta", process.pid, 21000, "running")
    assert row.rss is not None
    assert row.rss > 10_000


def test_status_is_stopped_without_a_running_chat_up(layout: Layout) -> None:
    instance.write_state(layout.root, [ServiceState("letta", 21000, State.RUNNING, os.getpid(), 1)])
    (row,) = control.status(layout.root)
    assert (row.state, row.pid, row.rss) == ("stopped", None, None)


def test_status_of_an_unused_directory_is_empty(layout: Layout) -> None:
    assert control.status(layout.root) == []
    assert control.status(layout.root / "elsewhere") == []


def test_down_stops_and_waits(layout: Layout) -> None:
    with another_chat_up(layout) as running:
        assert control.down(layout.root, timeout=120)
        assert instance.running_pid(layout.root) is None
        assert running.wait() == 0


def test_down_kills_a_chat_up_that_does_not_stop(layout: Layout) -> None:
    with another_chat_up(layout, polite=False) as running:
        assert control.down(layout.root, timeout=0.1)
        assert running.wait() == -signal.SIGKILL


def test_down_without_a_chat_up_returns_false(layout: Layout) -> None:
    assert not control.down(layout.root)


def test_a_running_stack_is_not_wiped(layout: Layout) -> None:
    with another_chat_up(layout), pytest.raises(StackError, match="already running"):
        control.wipe(layout.root)
    control.wipe(layout.root)
    assert not layout.root.exists()


def test_a_log_is_found_by_its_service_only(layout: Layout) -> None:
    layout.log("letta").write_text("hello\n")
    assert control.recent_log(layout.root, "letta", 10) == ["hello"]
    with pytest.raises(StackError, match="there are: letta"):
        control.recent_log(layout.root, "../run/state", 10)


def test_following_a_log_continues_after_its_rotation(layout: Layout) -> None:
    log = layout.log("letta")
    log.write_text("old\n")

    def write(text: str) -> None:
        with log.open("a") as file:
            file.write(text)

    def rotate() -> None:
        log.replace(log.with_suffix(".log.1"))
        write("after\n")

    def advance() -> None:
        next(steps)()

    steps = iter((lambda: write("new\n"), rotate, lambda: None))
    following = control.follow_log(layout.root, "letta", lines=1, pause=advance)
    assert [next(following) for _ in range(3)] == ["old\n", "new\n", "after\n"]
