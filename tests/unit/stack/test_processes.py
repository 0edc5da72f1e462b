"""Child processes: their logs and failures, and their end with the parent, even if it is killed."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.stack import processes
from server.stack.errors import StackError
from server.stack.layout import Layout
from server.stack.service import Account, Command
from tests.unit.stack.small_services import wait_until_gone

PARENT = """
import asyncio, signal, sys
from pathlib import Path
from server.stack import processes
from server.stack.service import Command

async def main():
    child = await processes.start(Command(("sleep", "600"), {{}}, Path("/")), Path({log!r}))
    print(child.pid, flush=True)
    signal.pause()

asyncio.run(main())
"""


def command(*argv: str, account: Account | None = None) -> Command:
    return Command(argv, {"PATH": "/usr/bin:/bin"}, Path("/"), account, stop_seconds=0.05)


def shell(script: str) -> Command:
    return command("sh", "-c", script)


async def test_output_goes_to_a_private_log(layout: Layout) -> None:
    await processes.run(shell("echo one; echo two >&2"), layout.log("step"), "stepping")
    assert layout.log("step").read_text() == "one\ntwo\n"
    assert layout.log("step").stat().st_mode & 0o777 == 0o600


async def test_a_failure_quotes_the_last_line_of_this_run_only(layout: Layout) -> None:
    layout.log("step").write_text("old line")
    with pytest.raises(StackError, match=r"^stepping failed: it broke \(more in .*step\.log\)$"):
        await processes.run(shell("echo working; echo it broke; echo; exit 3"), layout.log("step"), "stepping")


async def test_a_failure_without_output_has_its_exit_code(layout: Layout) -> None:
    with pytest.raises(StackError, match="stepping failed: exit code 3"):
        await processes.run(shell("exit 3"), layout.log("step"), "stepping")


async def test_a_full_disk_is_recognised_in_the_output(layout: Layout) -> None:
    script = "echo 'write: No space left on device (os error 28)'; echo hint; exit 1"
    with pytest.raises(StackError, match=r"^stepping failed: the disk is full"):
        await processes.run(shell(script), layout.log("step"), "stepping")


async def test_a_known_reason_replaces_the_last_line(layout: Layout) -> None:
    with pytest.raises(StackError, match=r"^stepping failed: connection refused \(more in "):
        await processes.run(
            shell("echo 'ECONNREFUSED'; echo see the manual; exit 1"),
            layout.log("step"),
            "stepping",
            {"ECONNREFUSED": "connection refused"},
        )


async def test_a_program_that_does_not_exist_is_named(layout: Layout) -> None:
    with pytest.raises(StackError, match="no-such-program"):
        await processes.run(command("no-such-program"), layout.log("step"), "stepping")


async def test_a_cancelled_step_has_its_process_group_killed(layout: Layout, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    step = shell(f"sleep 600 & echo $! > {fifo}; wait")
    task = asyncio.create_task(processes.run(step, layout.log("step"), "stepping"))
    grandchild = int(await asyncio.to_thread(fifo.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wait_until_gone(grandchild)


async def test_a_process_that_ignores_the_stop_signal_is_killed(layout: Layout, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    stubborn = shell(f"trap '' TERM; echo up > {fifo}; while :; do sleep 600; done")
    process = await processes.start(stubborn, layout.log("stubborn"))
    await asyncio.to_thread(fifo.read_text)
    await processes.stop(process, stubborn)
    assert process.returncode == -signal.SIGKILL


def test_killing_the_parent_ends_its_children(layout: Layout) -> None:
    script = PARENT.format(log=str(layout.log("child")))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert wait_until_gone(child)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
@pytest.mark.parametrize("namespace", [False, True])
async def test_root_can_run_a_program_as_an_ordinary_user(layout: Layout, namespace: bool) -> None:
    account = Account(65534, 65534, namespace)
    if not processes._possible(account):
        pytest.skip("this container allows no such change of user")
    await processes.run(command("id", "-u", account=account), layout.log("step"), "asking")
    assert layout.log("step").read_text() == "65534\n"


def test_a_long_log_is_rotated(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_LIMIT", 3)
    layout.log("chatty").write_text("long ago\n")
    with processes.open_log(layout.log("chatty")) as log:
        log.write(b"now\n")
    assert layout.log("chatty").read_text() == "now\n"
    assert layout.log("chatty").with_suffix(".log.1").read_text() == "long ago\n"


def test_the_tail_of_a_log_is_its_last_lines(layout: Layout) -> None:
    layout.log("numbers").write_text("".join(f"{n}\n" for n in range(5000)))
    assert processes.tail(layout.log("numbers"), 2) == ["4998", "4999"]
    assert processes.tail(layout.log("none"), 2) == []
