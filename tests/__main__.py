"""`python -m tests`: everything that must pass before a change lands, each step with its time, all failures shown.

The stack starts once, beside what needs no services. Tests that share it well run in several processes, since most of
their time is waiting; those marked `alone` follow one by one. What runs beside is printed when it ends.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.conftest import shared_stack

PYTEST = (sys.executable, "-m", "pytest", "-q", "--durations=50", "--durations-min=5")
BESIDE_EACH_OTHER = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")
"""Processes: one more than the cores of a small machine, since tests wait more than they compute. Their order
stays, because LiteLLM's limits per minute must be tested while few keys are in use."""
WITHOUT_SERVICES = {
    "lint": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("mypy",),
    "import rules": ("lint-imports",),
    "unit tests": (*PYTEST, "tests/unit"),
}
SERVICES = (*PYTEST, "tests", "--ignore=tests/unit")
WITH_SERVICES = {
    "tests that share the services": (*SERVICES, "-m", "not alone", *BESIDE_EACH_OTHER),
    "tests that need the services alone": (*SERVICES, "-m", "alone"),
}


def main() -> int:
    with ThreadPoolExecutor(max_workers=1) as beside:
        others = beside.submit(_failed, WITHOUT_SERVICES, shown_at_the_end=True)
        with shared_stack():
            failed = _failed(WITH_SERVICES)
        failed += others.result()
    print(f"failed: {', '.join(failed)}" if failed else "all passed", flush=True)
    return 1 if failed else 0


def _failed(steps: Mapping[str, Sequence[str]], *, shown_at_the_end: bool = False) -> list[str]:
    """Do the steps one after another; the names of those that failed."""
    failed = []
    for name, command in steps.items():
        print(f"== {name}: {' '.join(command)}\n", end="", flush=True)  # in one piece: both kinds print
        began = time.monotonic()
        done = subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE if shown_at_the_end else None,
            stderr=subprocess.STDOUT if shown_at_the_end else None,
            text=True,
        )
        if done.returncode != 0:
            failed.append(name)
        outcome = "failed" if done.returncode != 0 else "passed"
        print(f"{done.stdout or ''}== {name}: {outcome}, {time.monotonic() - began:.0f} s", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
