"""`chat serve`: one server process, from its start to the end of its drain."""

import asyncio
import gc
import importlib
import signal
import socket
import sys

import click
import structlog
import uvloop
from pydantic import ValidationError

from server.app.exit_deadline import GRACE_SECONDS, exit_within
from server.app.lifecycle import LIFECYCLE
from server.app.startup_checks import check_at_start
from server.app.wiring import create_app
from server.config.environment import misspelt, settings_problems
from server.config.settings import Settings
from server.http.http_server import BACKLOG, serving, within_open_files
from server.observability.logs import configure_logging
from server.ports import Diagnosis
from server.terminal import echo

DOCTORS_SECONDS = 5.0
"""How long one check may take when an operator waits for a page."""

log = structlog.get_logger(__name__)


@click.command()
def serve() -> None:
    """Run the API server against the services named in the environment (HOST, PORT; every interface by default)."""
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in settings_problems(error):
            echo(f"chat: {problem}", err=True, fg="red")
        sys.exit(2)
    configure_logging(settings.environment, settings.log_level)
    uvloop.run(run(settings))


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain: unready, no new turns, running turns finish, clients reconnect.

    The process exits at the latest `drain_seconds` plus GRACE_SECONDS after the first signal.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        if not stop.is_set():
            stop.set()
            exit_within(settings.drain_seconds + GRACE_SECONDS, loop)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    await check_at_start(settings)
    app = create_app(settings, lambda: examine_services(settings))
    max_connections = within_open_files(settings.max_connections)
    async with serving(app, lambda: _listen(settings.host, settings.port), max_connections):
        tune_garbage_collector()
        app[LIFECYCLE].started()
        log.info("server.started", host=settings.host or "*", port=settings.port, environment=settings.environment)
        await stop.wait()
        await app[LIFECYCLE].drain(settings.drain_seconds)
    log.info("server.stopped")


async def examine_services(settings: Settings) -> list[Diagnosis]:
    """What `chat doctor` finds. Imported at the first use, in a thread: a server without admins saves 12 MB."""
    doctor = await asyncio.to_thread(importlib.import_module, "server.cli.doctor")
    found: list[Diagnosis] = await doctor.diagnose(settings, misspelt(), check_seconds=DOCTORS_SECONDS)
    return found


def tune_garbage_collector() -> None:
    """Make full garbage collections rare: with 200 streaming sessions, each one paused all of them for 5 ms.

    Objects that exist now are permanent and are excluded; collections of young objects are as frequent as before.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 200)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket on `host`, or if it is empty, on all IPv6 and IPv4 addresses of the machine."""
    try:
        if host:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
        return socket.create_server(("", port), backlog=BACKLOG)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host or '*'}:{port}: {error.strerror or error}") from error
