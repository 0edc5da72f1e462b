"""What the stack of the specification costs: FastAPI, uvicorn and letta-client as a relay, against the bare relay."""

import asyncio
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.bench.processes import listening
from tests.bench.streams import Figures, measure, stream, upstream_running
from tests.bench.table import Row, times
from tests.stack.running_stack import free_port

INSTALL_SECONDS: Final = 300.0
GRACE_SECONDS: Final = 60.0
"""So long after the model's last chunk a relay has failed that has not delivered all of them. letta-client opens 100
connections at most, so that of more sessions some never begin."""
_FOLDER: Final = Path(__file__).parent / "specified"


@contextmanager
def environment() -> Iterator[str]:
    """The Python of an environment with the relay's packages, which the server does not have."""
    with tempfile.TemporaryDirectory() as folder:
        python = f"{folder}/bin/python"
        subprocess.run(["uv", "venv", "--quiet", "--clear", folder], check=True, timeout=INSTALL_SECONDS)
        requirements = str(_FOLDER / "requirements.txt")
        install = ["uv", "pip", "install", "--no-config", "--quiet", "--python", python, "-r", requirements]
        subprocess.run(install, check=True, timeout=INSTALL_SECONDS)
        yield python


def measure_specified(python: str, sessions: int, chunks: int, rate: float) -> Figures:
    """One run of the relay of `python`'s environment against a fresh upstream."""
    port = free_port()
    with upstream_running(sessions, chunks, rate) as upstream:
        command = ["env", f"UPSTREAM={upstream}", python, str(_FOLDER / "relay.py"), "--port", str(port)]
        with listening(command, port) as pid:
            return asyncio.run(
                asyncio.wait_for(stream(port, port, sessions, chunks, pid), chunks / rate + GRACE_SECONDS)
            )


def main(sessions: int, chunks: int, rate: float, rounds: int) -> list[Row]:
    """Print the figures of the bare relay, ours and the specified stack, `rounds` times in turn."""
    results: dict[str, list[Figures]] = {"bare": [], "ours": [], "specified": []}
    print(f"{sessions} sessions, {rate:g} chunks/s each, {chunks} chunks")
    with environment() as python:
        for _ in range(rounds):
            for kind, runs in results.items():
                if kind == "specified":
                    runs.append(measure_specified(python, sessions, chunks, rate))
                else:
                    runs.append(measure("bare" if kind == "bare" else "ours", sessions, chunks, rate))
                one = runs[-1]
                print(f"{kind:>10} {one.p50:9.1f} {one.p99:9.1f} {one.cpu_per_chunk:9.1f}", flush=True)
    bare, ours, other = (statistics.median(one.cpu_per_chunk for one in runs) for runs in results.values())
    late = statistics.median(one.p99 for one in results["specified"])
    print(f"specified: {times(other, bare):.2f} times the CPU of bare, {times(other, ours):.2f} times ours", end="")
    print(f", p99 {late:.0f} ms")
    beside = f"{other:.0f} µs a chunk; ours {times(ours, bare):.2f} times; p99 {late:,.0f} ms"
    name = f"FastAPI, uvicorn, letta-client against a bare relay, {sessions} sessions"
    return [Row(name, f"{times(other, bare):.2f} times ({beside})")]
