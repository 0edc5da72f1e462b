"""`python -m tests`: all checks that must pass before a change lands. Prints all failures, and a table of times.

The stack starts once. Checks without services run beside it at a lower priority. The tests marked `alone` come first,
one by one, while those checks use the other core. Tests that can share the stack follow in several processes, since
they mostly wait.
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import shared_stack

PYTEST = (sys.executable, "-m", "pytest", "-q", "--durations=50", "--durations-min=2")
BESIDE_EACH_OTHER = ("-n", "5", "--dist", "loadfile", "--no-loadscope-reorder")
"""Processes: more than the two cores of a small machine, since tests wait more than they compute. The order of files is
fixed, because LiteLLM's limits per minute must be tested while few keys are in use."""
WITHOUT_SERVICES = {
    "lint": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("mypy",),
    "import rules": ("lint-imports",),
    "unit tests": (*PYTEST, "tests/unit"),
}
SERVICES = (*PYTEST, "tests", "--ignore=tests/unit")
WITH_SERVICES = {
    "tests that need the services alone": (*SERVICES, "-m", "alone"),
    "tests that share the services": (*SERVICES, "-m", "not alone", *BESIDE_EACH_OTHER),
}
LOWER_PRIORITY = 5
"""A third of the usual share of a busy processor: some tests of `unit/` measure real time, and must not starve."""


@dataclass(frozen=True, slots=True)
class Step:
    """`seconds` of wall-clock time, and of `processor` time in its processes, user and system."""

    name: str
    passed: bool
    seconds: float
    processor: float

    def __str__(self) -> str:
        outcome = "passed" if self.passed else "failed"
        return f"{self.name}: {outcome}, {self.seconds:.0f} s ({self.processor:.0f} s of processor time)"


class Steps:
    """Runs commands one after another in each of two threads. Commands that still run at the end of the block are
    ended."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_over = False

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        for process in tuple(self._running):
            process.terminate()

    def run(self, commands: Mapping[str, Sequence[str]]) -> list[Step]:
        """Run each with its output to the terminal."""
        steps = []
        for name, command in commands.items():
            began = _announced(name, command)
            steps.append(self._ended(name, subprocess.Popen(command), began))
            print(f"== {steps[-1]}", flush=True)
        return steps

    def run_beside(self, commands: Mapping[str, Sequence[str]]) -> list[Step]:
        """Run each at a lower priority, and print its output when it has ended."""
        steps = []
        for name, command in commands.items():
            if self._is_over:
                break
            began = _announced(name, command)
            with tempfile.TemporaryFile() as output:
                process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
                _lower_priority(process.pid)
                steps.append(self._ended(name, process, began))
                output.seek(0)
                print(f"{output.read().decode(errors='replace')}== {steps[-1]}", flush=True)
        return steps

    def _ended(self, name: str, process: "subprocess.Popen[bytes]", began: float) -> Step:
        """The step, once its process has ended."""
        self._running.add(process)
        _, status, used = os.wait4(process.pid, 0)
        self._running.discard(process)
        process.returncode = os.waitstatus_to_exitcode(status)
        return Step(name, process.returncode == 0, time.monotonic() - began, used.ru_utime + used.ru_stime)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=1) as thread, Steps() as steps:
        others = thread.submit(steps.run_beside, WITHOUT_SERVICES)
        with shared_stack():
            ready = time.monotonic() - began
            done = steps.run(WITH_SERVICES) + others.result()
    _print_times(done, ready, time.monotonic() - began)
    failed = [step.name for step in done if not step.passed]
    print(f"failed: {', '.join(failed)}" if failed else "all passed", flush=True)
    return 1 if failed else 0


def _announced(name: str, command: Sequence[str]) -> float:
    """Print the start of a step; returns its time."""
    print(f"== {name}: {' '.join(command)}\n", end="", flush=True)  # in one piece: two threads print
    return time.monotonic()


def _lower_priority(pid: int) -> None:
    """Lower the priority of the process, the leader of a session, and so of its children."""
    with suppress(OSError):  # it may have ended, or this is no Linux
        os.setpriority(os.PRIO_PROCESS, pid, LOWER_PRIORITY)
        Path(f"/proc/{pid}/autogroup").write_text(str(LOWER_PRIORITY))  # between sessions only this one counts


def _print_times(steps: Sequence[Step], ready: float, seconds: float) -> None:
    """A line for each step, the stack's services, and all of it: seconds passed, and seconds of processor time."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = used.ru_utime + used.ru_stime
    services = total - sum(step.processor for step in steps)
    rows = [(f"services (ready after {ready:.0f} s)", seconds, services)]
    rows += [(step.name, step.seconds, step.processor) for step in steps]
    print(f"{'':40}  passed  of processor time")
    for name, passed, processor in (*rows, ("all", seconds, total)):
        print(f"{name:40} {passed:5.0f} s {processor:17.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
