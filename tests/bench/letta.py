"""Turns per second of the running stack while users talk without pause, and what each service spends on a turn.

Letta is what limits it. `--released`, `--without PATCH`, `--workers` and `--pool` each start another Letta beside the
stack's, and a server that uses it, and measure all of them in alternate rounds.
"""

import asyncio
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from server.stack.instance import tree_memory
from tests.bench.stack import running_stack
from tests.bench.table import Row, at_least, at_most
from tests.stack.chat_client import Device, register
from tests.stack.own_server import ServerProcess, server_environment
from tests.stack.patches import ALL, switches
from tests.stack.running_stack import RunningStack, free_port

CPU_SECONDS: Final = 0.11
TIMES: Final = 2.0
TEXT: Final = "ECHO one two three four five"
ALL_ELSE: Final = "all else"
"""The users' side of the benchmark, the model, and whatever else runs on this machine."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_MEBIBYTE: Final = 2**20
_START_SECONDS: Final = 180.0


@dataclass(frozen=True, slots=True)
class Variant:
    """Another Letta: the stack's, but for this. `without`: the patches that it does not have. `pool`: database
    connections of each worker, and so many more at peaks."""

    name: str
    without: Collection[str] = ()
    workers: int | None = None
    pool: int | None = None

    def change(self, argv: list[str], variables: dict[str, str]) -> None:
        """Make the stack's command and environment this one's."""
        variables |= switches(self.without)
        if self.workers is not None:
            argv += ["--workers", str(self.workers)]
        if self.pool is not None:
            variables |= {name: str(self.pool) for name in ("LETTA_PG_POOL_SIZE", "LETTA_PG_MAX_OVERFLOW")}


RELEASED: Final = Variant("as released", ALL)


@dataclass(frozen=True, slots=True)
class Side:
    """A server and its Letta. `pids` has the process of each service."""

    name: str
    devices: list[Device]
    pids: dict[str, int]


@dataclass(frozen=True, slots=True)
class Round:
    """`replies`: the seconds that each turn took; `cpu`: CPU seconds by service, and of all else on this machine."""

    seconds: float
    replies: list[float]
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        return len(self.replies) / self.seconds

    def per_turn(self, service: str) -> float:
        """CPU seconds of a service per turn."""
        return self.cpu[service] / len(self.replies)


def main(users: int, seconds: float, rounds: int, variants: Sequence[Variant]) -> list[Row]:
    """Print a line per round, and a table of the medians."""
    ours, *others = asyncio.run(_measure(users, seconds, rounds, variants))
    rate = statistics.median(one.rate for one in ours)
    cpu = statistics.median(one.per_turn("letta") for one in ours)
    rows = [at_most("Letta's CPU per turn", cpu, CPU_SECONDS, "s", f"{rate:.1f} turns/s of {users} users")]
    for variant, other in zip(variants, others, strict=True):
        its_rate = statistics.median(one.rate for one in other)
        what, beside = f"Turns per second against Letta {variant.name}", f"{rate:.1f} against {its_rate:.1f} turns/s"
        row = at_least(what, rate / its_rate, TIMES, "times", beside)
        rows.append(row if variant is RELEASED else Row(what, row.measured))
    return rows


async def _measure(users: int, seconds: float, rounds: int, variants: Sequence[Variant]) -> list[list[Round]]:
    """The rounds of the stack's Letta, and of each variant."""
    stack = running_stack()
    pids = {name: int(row["pid"]) for name, row in stack.status().items() if row["pid"]}
    async with AsyncExitStack() as running:
        http = await running.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        sides = [Side("Letta here", await _devices(running, http, stack.url, users), pids)]
        for variant in variants:
            letta, letta_url = running.enter_context(_another_letta(pids["letta"], variant))
            await _healthy(http, letta_url)
            server = running.enter_context(_another_server(stack, letta_url))
            await server.ready()
            theirs = await _devices(running, http, server.url, users)
            sides.append(Side(variant.name, theirs, {**pids, "letta": letta, "server": server.pid}))
        for side in sides:
            await asyncio.gather(*(_turn(device) for device in side.devices))
        measured: dict[str, list[Round]] = {side.name: [] for side in sides}
        for _ in range(rounds):
            for side in sides:
                measured[side.name].append(done := await _round(side, seconds))
                print(
                    f"{side.name}: {done.rate:.2f} turns/s, Letta {done.per_turn('letta'):.3f} CPU s a turn", flush=True
                )
        for side in sides:
            _print_table(side, measured[side.name])
        return list(measured.values())


async def _devices(running: AsyncExitStack, http: aiohttp.ClientSession, url: str, users: int) -> list[Device]:
    registered = [await register(http, url, f"User {number}") for number in range(users)]
    return [await running.enter_async_context(user.connect()) for user in registered]


async def _round(side: Side, seconds: float) -> Round:
    before = {name: tree_cpu_seconds(pid) for name, pid in side.pids.items()} | {ALL_ELSE: busy_seconds()}
    began, replies = time.monotonic(), list[float]()
    await asyncio.gather(*(_talk(device, began + seconds, replies) for device in side.devices))
    took = time.monotonic() - began
    used = {name: tree_cpu_seconds(pid) - before[name] for name, pid in side.pids.items()}
    used[ALL_ELSE] = busy_seconds() - before[ALL_ELSE] - sum(used.values())
    return Round(took, replies, used)


async def _talk(device: Device, until: float, replies: list[float]) -> None:
    while (began := time.monotonic()) < until or not replies:
        await _turn(device)
        replies.append(time.monotonic() - began)


async def _turn(device: Device) -> None:
    device.frames.clear()
    ack = await device.say(TEXT)
    end = await device.end_of(ack["turn_id"])
    assert end["type"] == "turn.completed", end


@contextmanager
def _another_letta(pid: int, variant: Variant) -> Iterator[tuple[int, str]]:
    """The command of this process once more, on a port of its own and as the variant has it: pid and URL."""
    process = Path(f"/proc/{pid}")
    argv = process.joinpath("cmdline").read_text().split("\0")[:-1]
    variables = dict(pair.split("=", 1) for pair in process.joinpath("environ").read_text().split("\0") if pair)
    port = free_port()
    argv[argv.index("--port") + 1] = str(port)
    variant.change(argv, variables)
    with subprocess.Popen(
        argv,
        env=variables,
        cwd=process.joinpath("cwd").readlink(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as letta:
        try:
            yield letta.pid, f"http://127.0.0.1:{port}"
        finally:
            os.killpg(letta.pid, signal.SIGKILL)  # with its workers


async def _healthy(http: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            with suppress(aiohttp.ClientError):
                async with http.get(f"{url}/v1/health/") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.5)


@contextmanager
def _another_server(stack: RunningStack, letta_url: str) -> Iterator[ServerProcess]:
    """A server on the stack's own Supabase, which has other users than the stack's server."""
    with tempfile.TemporaryDirectory() as folder:
        variables = {**server_environment(stack, {}), "LETTA_BASE_URL": letta_url}
        del variables["REDIS_URL"]
        with ServerProcess(variables, Path(folder) / "server.log", forked=False) as server:
            yield server


def _print_table(side: Side, rounds: list[Round]) -> None:
    rate = statistics.median(done.rate for done in rounds)
    reply = statistics.median(seconds for done in rounds for seconds in done.replies)
    print(f"\n{side.name}, {len(side.devices)} users: median {rate:.2f} turns/s, a turn takes {reply:.2f} s")
    print(f"{'service':>12} {'CPU ms per turn':>16} {'cores':>6} {'MiB':>6}")
    for name in rounds[0].cpu:
        turn = statistics.median(done.per_turn(name) for done in rounds)
        cores = statistics.median(done.cpu[name] / done.seconds for done in rounds)
        memory = f"{tree_memory(side.pids[name]) / _MEBIBYTE:.0f}" if name in side.pids else ""
        print(f"{name:>12} {turn * 1000:>16.1f} {cores:>6.2f} {memory:>6}")


def tree_cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants, including those that have ended."""
    children: dict[int, list[int]] = {}
    used: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has just ended
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(folder.name))
                used[int(folder.name)] = sum(int(field) for field in fields[11:15])
    total, pids = 0, [pid]
    while pids:
        process = pids.pop()
        total += used.get(process, 0)
        pids += children.get(process, [])
    return total / _TICKS


def busy_seconds() -> float:
    """Time that the cores of this machine have not been idle."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    user, nice, system, _idle, _waiting, irq, soft_irq = (int(field) for field in fields[:7])
    return (user + nice + system + irq + soft_irq) / _TICKS
