"""`python -m tests`: everything that must pass before a change lands, each step with its time, all failures shown.

What needs no services is done while they start and are waited for. What it prints is shown when it ends.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

PYTEST = (sys.executable, "-m", "pytest", "-q")
WITHOUT_SERVICES = {
    "lint": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("mypy",),
    "import rules": ("lint-imports",),
    "unit tests": (*PYTEST, "tests/unit"),
}
WITH_SERVICES = {"tests with services": (*PYTEST, "tests", "--ignore=tests/unit")}


def main() -> int:
    with ThreadPoolExecutor(max_workers=1) as beside:
        others = beside.submit(_failed, WITHOUT_SERVICES, shown_at_the_end=True)
        failed = [*_failed(WITH_SERVICES), *others.result()]
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
