"""`chat up`: installs and runs the whole local stack in the foreground."""

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from server.stack import instance, launch, preflight
from server.stack.api_server import ApiServer
from server.stack.console import Console
from server.stack.environments import Node, uv_program
from server.stack.errors import StackError
from server.stack.instance import ServiceState
from server.stack.layout import LOOPBACK, Layout
from server.stack.letta import Letta
from server.stack.litellm import LiteLLM, upstream
from server.stack.model import DemoModel
from server.stack.postgres import Postgres
from server.stack.redis import Redis
from server.stack.service import Service
from server.stack.stack_env import write_stack_env
from server.stack.supabase_lite import SupabaseLite
from server.stack.supervisor import Supervisor

WELCOME = """
Ready after {seconds:.0f} s. In a browser: {url}

  Register, then send a first message:

    curl -s {url}/api/v1/auth/register -H 'Content-Type: application/json' \\
         -d '{{"email": "me@example.com", "password": "Remember-me-1"}}'
    curl -N {url}/api/v1/chat/message -H 'Content-Type: application/json' \\
         -H 'Authorization: Bearer <access_token>' -d '{{"content": "Remember that I like green tea."}}'

  Talk over the WebSocket ({ws}/api/v1/chat/stream) from another terminal:

    uv run python examples/chat.py --email me@example.com --password Remember-me-1 --url {url}

  The services' addresses and keys are in {env_file}
"""
SAME_INTERRUPT_SECONDS = 0.7
"""Two interrupts within so many seconds are one Ctrl-C: `uv run` forwards it, and the terminal sends it too."""


def local_services(layout: Layout, with_server: bool) -> list[Service]:
    """The services of the stack, in the order of `chat status`."""
    node = Node(layout)
    services: list[Service] = [Postgres(layout), Redis(layout), SupabaseLite(layout, node)]
    services += [LiteLLM(layout, node), Letta(layout)]
    if upstream(layout).demo:
        services.append(DemoModel(layout))
    if with_server:
        services.append(ApiServer(layout))
    return services


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `chat up`."""

    data_dir: Path
    port: int
    with_server: bool = True


def up(options: Options) -> None:
    """Run the stack until Ctrl-C, SIGTERM or `chat down`. Raises StackError if it cannot be started."""
    preflight.check_environment(os.environ)
    preflight.check_platform()
    layout = Layout.open(options.data_dir, options.port)
    with instance.held_lock(layout.root):
        _end_with_uv()
        console = Console(layout)
        console.capture_logging()
        for name in instance.kill_orphans(layout.root):
            console.step(name, "ended a process that an earlier `chat up` had left")
        if options.with_server:
            preflight.check_port(LOOPBACK, options.port)
        services = local_services(layout, options.with_server)
        installed = all(service.installed for service in services)
        preflight.check_disk(layout.root, installed)
        if not installed:
            uv_program()
        console.say(f"Starting the stack in {layout.root}")
        try:
            write_stack_env(layout)
            asyncio.run(_supervise(layout, services, console))
        except OSError as error:
            raise StackError(f"{error.filename or layout.root} cannot be used: {error.strerror}") from error


async def _supervise(layout: Layout, services: list[Service], console: Console) -> None:
    def record(states: list[ServiceState]) -> None:
        with contextlib.suppress(OSError):  # with a full disk, services must still be stopped and restarted
            instance.write_state(layout.root, states)

    supervisor = Supervisor(services, console, record)
    stop = asyncio.Event()
    first = 0.0

    def on_signal(name: str) -> None:
        nonlocal first
        if not stop.is_set():
            first = time.monotonic()
            console.say(f"{name}: stopping (again to kill)")
            stop.set()
        elif time.monotonic() - first > SAME_INTERRUPT_SECONDS:
            supervisor.kill_all()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # under nohup the stack survives its terminal
        loop.add_signal_handler(number, on_signal, number.name)

    async def ready() -> None:
        console.say(_welcome(layout, console.elapsed, with_server=any(s.name == "server" for s in services)))

    await supervisor.run(stop, ready)
    console.say("All stopped.")


def _end_with_uv() -> None:
    """If `uv run` started this process, stop when uv is killed.

    The end of another parent, such as a shell, does not stop it: it may run under nohup."""
    with contextlib.suppress(OSError):
        parent = Path(f"/proc/{os.getppid()}/exe").readlink()
        if parent.name == "uv" or str(parent) == os.environ.get("UV"):
            ctypes.CDLL(None).prctl(launch.PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _welcome(layout: Layout, seconds: float, with_server: bool) -> str:
    env_file = layout.root / "stack.env"
    if not with_server:
        return f"\nThe services are ready after {seconds:.0f} s; their addresses and keys are in {env_file}\n"
    address = f"{LOOPBACK}:{layout.api_port}"
    return WELCOME.format(url=f"http://{address}", ws=f"ws://{address}", seconds=seconds, env_file=env_file)
