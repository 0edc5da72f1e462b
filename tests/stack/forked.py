"""`chat` commands in processes that are forked from one that has imported the server: importing it again for each takes
a second of processor time.

Such a process has a pid, an environment, a folder and an output of its own, and runs what `python -m server` runs.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Final

from server.cli.main import main

ROOT: Final = Path(__file__).parents[2]
IMPORTED: Final = ("serve", "users_accounts", "users_access", "users_budget", "users_reports", "billing", "doctor")
"""The commands of `server.cli` that tests run often."""
RUN_SECONDS: Final = 300.0

_FORK_SERVER = get_context("forkserver")
_FORK_SERVER.set_forkserver_preload([__name__, *(f"server.cli.{name}" for name in IMPORTED)])


class Forked:
    """`chat` with these arguments, from its start on. It is killed when this process exits.

    What it writes is appended to `output`, what it writes to standard error to `errors`, by default the same file."""

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str], output: Path, errors: Path | None = None
    ) -> None:
        given = (tuple(arguments), dict(env), output, errors or output)
        self._process = _FORK_SERVER.Process(target=_chat, args=given, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        """Its pid."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def wait(self, seconds: float | None = None) -> int:
        """Return when it has ended. Raises subprocess.TimeoutExpired."""
        self._process.join(seconds)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("chat", seconds or 0)
        return code


def run_chat(*arguments: str, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run `chat` with these arguments to its end. If it does not end, kills it and raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        process = Forked(arguments, env, output, errors)
        try:
            code = process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(("chat", *arguments), code, output.read_text(), errors.read_text())


def end_fork_server() -> None:
    """End the process from which the others were forked, so that their processor time counts as this one's."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def _chat(arguments: tuple[str, ...], env: dict[str, str], output: Path, errors: Path) -> None:
    """In the forked process: become what `python -m server` is with these arguments."""
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["chat", *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    for path, descriptor in ((output, 1), (errors, 2)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(ROOT)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the process ends
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    main()
