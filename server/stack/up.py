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
from server.stack.environments import Node, uv_program
from server.stack.errors import StackError
from server.stack.instance import ServiceState
from server.stack.layout import LOOPBACK, Layout
from server.stack.letta import Letta
from server.stack.litellm import LiteLLM, upstream
from server.stack.model import DemoModel
from server.stack.postgres import Postgres
from server.stack.progress import ProgressLog
from server.stack.redis import Redis
from server.stack.service import Service
from server.stack.stack_env import demo_user, write_stack_env
from server.stack.supabase_lite import SupabaseLite
from server.stack.supervisor import Supervisor

WELCOME = """
Ready after {seconds:.0f} s.

  time       {critical_path}
  model      {model}
  mails      are not sent; `uv run chat mails` shows them
  terminal   uv run chat talk --url {url}
  API        {url}/docs; the services' addresses and keys are in {env_file}
  to stop    Ctrl-C; the same command continues with the same data
"""
DEMO_MODEL = "the demo model, which understands little; a real one: OPENAI_API_KEY=sk-… uv run chat up"
OPEN = "Open {url} in a browser and talk. {account}"
WITH_DEMO_USER = "Its demo user needs no account."
CONFIRMED = "Register, and open the link that `uv run chat mails` shows."
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
        progress = ProgressLog(layout)
        progress.capture_logging()
        for name in instance.kill_orphans(layout.root):
            progress.step(name, "ended a process that an earlier `chat up` had left")
        if options.with_server:
            preflight.check_port(LOOPBACK, options.port)
        services = local_services(layout, options.with_server)
        installed = all(service.installed for service in services)
        preflight.check_disk(layout.root, installed)
        if not installed:
            uv_program()
        progress.say(f"Starting the stack in {layout.root}")
        try:
            write_stack_env(layout)
            asyncio.run(_supervise(layout, services, progress))
        except OSError as error:
            raise StackError(f"{error.filename or layout.root} cannot be used: {error.strerror}") from error


async def _supervise(layout: Layout, services: list[Service], progress: ProgressLog) -> None:
    def record(states: list[ServiceState]) -> None:
        with contextlib.suppress(OSError):  # with a full disk, services must still be stopped and restarted
            instance.write_state(layout.root, states)

    supervisor = Supervisor(services, progress, record)
    stop = asyncio.Event()
    first = 0.0

    def on_signal(name: str) -> None:
        nonlocal first
        if not stop.is_set():
            first = time.monotonic()
            progress.say(f"{name}: stopping (again to kill)")
            stop.set()
        elif time.monotonic() - first > SAME_INTERRUPT_SECONDS:
            supervisor.kill_all()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # under nohup the stack survives its terminal
        loop.add_signal_handler(number, on_signal, number.name)

    async def ready() -> None:
        if any(service.name == "server" for service in services):
            progress.say(welcome(layout, progress.elapsed, supervisor.critical_path()))
            progress.say(invitation(layout), highlighted=True)
        else:
            progress.say(f"\nThe services are ready after {progress.elapsed:.0f} s, see {layout.root / 'stack.env'}\n")

    await supervisor.run(stop, ready)
    progress.say("All stopped.")


def _end_with_uv() -> None:
    """If `uv run` started this process, stop when uv is killed.

    The end of another parent, such as a shell, does not stop it: it may run under nohup."""
    with contextlib.suppress(OSError):
        parent = Path(f"/proc/{os.getppid()}/exe").readlink()
        if parent.name == "uv" or str(parent) == os.environ.get("UV"):
            ctypes.CDLL(None).prctl(launch.PR_SET_PDEATHSIG, int(signal.SIGTERM))


def welcome(layout: Layout, seconds: float, critical_path: str) -> str:
    """What runs here and how to go on, before the invitation. `critical_path`: the supervisor's."""
    model = upstream(layout)
    return WELCOME.format(
        seconds=seconds,
        critical_path=critical_path,
        model=DEMO_MODEL if model.demo else f"{model.model}, with OPENAI_API_KEY",
        url=_url(layout),
        env_file=layout.root / "stack.env",
    )


def invitation(layout: Layout) -> str:
    """The last line that `chat up` prints before it waits."""
    return OPEN.format(url=_url(layout), account=WITH_DEMO_USER if demo_user(layout) else CONFIRMED)


def _url(layout: Layout) -> str:
    return f"http://{LOOPBACK}:{layout.api_port}"
