"""Flame graphs of the measured process: py-spy beside it while it is measured, if a folder for them is named."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

FOLDER: Final = "BENCH_FLAMES"
"""The variable that names the folder; `python -m tests.bench flame` sets it."""
RATE: Final = 200
"""Samples per second."""
DRAW_SECONDS: Final = 60.0
_HINT: Final = (
    "py-spy must be allowed to read another process: run the benchmark as root, allow it with "
    "`sysctl kernel.yama.ptrace_scope=0`, or in a container with `--cap-add SYS_PTRACE`."
)


@contextmanager
def recorded(pid: int) -> Iterator[None]:
    """Record what the process does until the end of the block, if flame graphs are wanted."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        yield
        return
    picture = Path(folder) / f"flame-{len(list(Path(folder).glob('flame-*.svg'))) + 1}.svg"
    command = [*_py_spy(), "record", "--pid", str(pid), "--rate", str(RATE), "--nonblocking", "--output", str(picture)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        yield
    finally:
        _end(process, picture)


def _end(process: "subprocess.Popen[str]", picture: Path) -> None:
    """Have it write its picture. A picture that is missing is reported, and ends nothing."""
    _signal(process, signal.SIGINT)
    try:
        said = process.communicate(timeout=DRAW_SECONDS)[0].strip()
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        said = f"{process.communicate()[0].strip()} (it was killed after {DRAW_SECONDS:.0f} s)"
    if picture.exists():
        print(f"flame graph: {picture}", flush=True)
        return
    print(f"no flame graph: py-spy said: {said or f'exit code {process.returncode}'}")
    if "ermission" in said or "ptrace" in said:
        print(_HINT, flush=True)


def _signal(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)  # where uv runs it, py-spy is its child


def _py_spy() -> list[str]:
    """The installed py-spy, or else uv's, which it installs at the first use."""
    found = shutil.which("py-spy")
    return [found] if found else ["uv", "tool", "run", "--quiet", "py-spy"]
