"""Commands in forked processes behave like those that a shell starts."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.stack.layout import Layout
from tests.stack import forked
from tests.stack.forked import ROOT, Forked, run_chat


def test_a_forked_command_says_and_returns_what_the_program_does() -> None:
    env = {"PATH": os.environ["PATH"], "SUPABASE_URL": "nonsense"}
    program = subprocess.run(
        [sys.executable, "-m", "server", "doctor"], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    done = run_chat("doctor", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (1, program.stdout, program.stderr)
    assert "SUPABASE_URL" in done.stdout


def test_a_wrong_command_ends_with_its_code_and_error() -> None:
    done = run_chat("users", "dance", env={})
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'dance'" in done.stderr


def test_a_forked_command_is_killed_by_its_pid(tmp_path: Path) -> None:
    layout = Layout.open(tmp_path, api_port=0)
    layout.log("letta").write_text("hello\n")
    command = Forked(("logs", "letta", "--follow", "--data-dir", str(tmp_path)), {}, tmp_path / "output")
    assert command.poll() is None
    os.kill(command.pid, signal.SIGKILL)
    assert command.wait(120) == -signal.SIGKILL
    assert command.poll() == -signal.SIGKILL


def test_a_command_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "RUN_SECONDS", 0.5)
    layout, before = Layout.open(tmp_path, api_port=0), set(multiprocessing.active_children())
    layout.log("letta").write_text("hello\n")
    with pytest.raises(subprocess.TimeoutExpired):
        run_chat("logs", "letta", "--follow", "--data-dir", str(tmp_path), env={})
    assert set(multiprocessing.active_children()) == before
