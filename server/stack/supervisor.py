"""Starts services in parallel as far as their dependencies allow, restarts exited ones, and stops all in order."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from server.stack import processes
from server.stack.errors import StackError
from server.stack.instance import ServiceState, State, start_time
from server.stack.progress import ProgressLog
from server.stack.service import Command, Service
from server.stack.timeline import LONG_SECONDS, Step, Timeline

HEALTH_INTERVAL = 0.2
RESTART_DELAYS = (0.2, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Backoff before the first, second, … consecutive restart, in seconds; the last one repeats."""
STEADY_AFTER = 10.0
"""After so many healthy seconds, the backoff starts again at its first delay."""
START_ATTEMPTS = 3
"""How often a service may exit before it was healthy for the first time."""


class Supervisor:
    """Owns the services' processes. `changed` is called after every change of a state."""

    def __init__(
        self, services: Sequence[Service], progress: ProgressLog, changed: Callable[[list[ServiceState]], None]
    ) -> None:
        self._progress = progress
        self._changed = changed
        self._runners = {service.name: _Runner(service, progress, self._record) for service in services}
        for runner in self._runners.values():
            runner.needs = [self._runners[name] for name in runner.service.depends_on if name in self._runners]
            for needed in runner.needs:
                needed.needed_by.append(runner)

    async def run(self, stop: asyncio.Event, when_ready: Callable[[], Awaitable[None]]) -> None:
        """Run until `stop`, then stop every process. Raises StackError if a service cannot be started."""
        try:
            await self._until_stopped(stop, when_ready)
        finally:
            await self._stop_all()

    def critical_path(self) -> str:
        """The steps that determined how long the start took: `letta: install 3 s, start 20 s; server: start 1 s`."""
        last = max((runner.timeline for runner in self._runners.values()), key=lambda timeline: timeline.ended)
        return "; ".join(last.critical_path())

    def kill_all(self) -> None:
        """Kill all processes; during a stop, instead of waiting for them."""
        for runner in self._runners.values():
            runner.kill()

    async def _until_stopped(self, stop: asyncio.Event, when_ready: Callable[[], Awaitable[None]]) -> None:
        failure: StackError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for runner in self._runners.values():
                    group.create_task(runner.live(), name=runner.service.name)
                group.create_task(self._announce(when_ready))
                group.create_task(_raise_when(stop))
        except* _StopRequested:
            pass
        except* (StackError, OSError) as errors:
            failure = _as_sentence(_leaves(errors)[0])
        if failure is not None:
            raise failure

    async def _announce(self, when_ready: Callable[[], Awaitable[None]]) -> None:
        for runner in self._runners.values():
            await runner.ready.wait()
        await when_ready()

    async def _stop_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for runner in self._runners.values():
                group.create_task(runner.stop())

    def _record(self) -> None:
        self._changed([runner.state for runner in self._runners.values()])


class _StopRequested(Exception):  # noqa: N818 - a request, not an error
    """Ends the task group that runs the services."""


class _Runner:
    """Runs one service: install, wait for its dependencies, prepare, start and restart; `stop` is called separately."""

    def __init__(self, service: Service, progress: ProgressLog, record: Callable[[], None]) -> None:
        self.service = service
        self.needs: list[_Runner] = []
        self.needed_by: list[_Runner] = []
        self.ready = asyncio.Event()
        self.timeline = Timeline(service.name)
        self._stopped = asyncio.Event()
        self._progress = progress
        self._record = record
        self._state = State.WAITING
        self._port: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._command: Command | None = None

    @property
    def state(self) -> ServiceState:
        process = self._process
        pid = process.pid if process is not None and process.returncode is None else None
        return ServiceState(self.service.name, self._port, self._state, pid, start_time(pid) if pid else None)

    async def live(self) -> None:
        """Start the service and restart it when it exits; ends only by cancellation or StackError."""
        await self._install()
        await self._wait_for_needs()
        await self._prepare()
        await self._first_start()
        await self._restart_on_exit()

    async def _restart_on_exit(self) -> None:
        began, row = time.monotonic(), 0
        while True:
            code = await self._running().wait()
            row = 0 if time.monotonic() - began > STEADY_AFTER else row
            delay = RESTART_DELAYS[min(row, len(RESTART_DELAYS) - 1)]
            row += 1
            self._enter(State.RESTARTING)
            self._say(f"died ({_reason(code)}); restarting in {delay:g} s (see `chat logs {self.service.name}`)")
            processes.kill_group(self._running().pid)
            await asyncio.sleep(delay)
            began = time.monotonic()
            await self._start()
            try:
                healthy = await self._becomes_healthy()
            except StackError as error:
                self._say(str(error))
                processes.kill_group(self._running().pid)
                continue
            if healthy:
                self._enter(State.RUNNING)
                self._say("running again", time.monotonic() - began)
                began = time.monotonic()

    async def stop(self) -> None:
        """Stop the process after all services that depend on it have stopped."""
        for user in self.needed_by:
            await user._stopped.wait()
        if self._process is not None and self._command is not None:
            began = time.monotonic()
            if self._process.returncode is None:
                self._enter(State.STOPPING)
                await processes.stop(self._process, self._command)
                self._say("stopped", time.monotonic() - began)
            processes.kill_group(self._process.pid)
        self._enter(State.STOPPED)
        self._stopped.set()

    def kill(self) -> None:
        """Kill the process group."""
        if self._process is not None and self._process.returncode is None:
            processes.kill_group(self._process.pid)

    async def _install(self) -> None:
        if self.service.installed:
            await self.service.install(self._say)
            return
        self._enter(State.INSTALLING)
        with self.timeline.step(Step.INSTALL):
            await self.service.install(self._say)
        self._say("installed", self.timeline.seconds(Step.INSTALL))
        self._enter(State.WAITING)

    async def _wait_for_needs(self) -> None:
        for needed in self.needs:
            if not needed.ready.is_set():
                await needed.ready.wait()
                self.timeline.waited_for = needed.timeline

    async def _prepare(self) -> None:
        self._enter(State.STARTING)
        with self.timeline.step(Step.PREPARE):
            await self.service.prepare()
        if (seconds := self.timeline.seconds(Step.PREPARE)) >= LONG_SECONDS:
            self._say("prepared", seconds)

    async def _first_start(self) -> None:
        waited_for = self.timeline.waited_for
        for _ in range(START_ATTEMPTS):
            with self.timeline.step(Step.START):
                await self._start()
                healthy = await self._becomes_healthy()
            if healthy:
                self._enter(State.RUNNING)
                after = f" after {waited_for.name}" if waited_for else ""
                self._say(f"ready{after}", self.timeline.seconds(Step.START))
                self.ready.set()
                return
        log = self.service.layout.log(self.service.name)
        last = processes.last_line("\n".join(processes.tail(log, 20)))
        raise StackError(f"{self.service.name} does not start: {last or 'it says nothing'} (more in {log})")

    async def _start(self) -> None:
        self._command = self.service.command()
        self._port = self.service.port
        self._process = await processes.start(self._command, self.service.layout.log(self.service.name))
        self._record()

    async def _becomes_healthy(self) -> bool:
        """Wait until healthy. Returns False if the process exits first. Raises StackError after `start_seconds`."""
        process, name = self._running(), self.service.name
        try:
            async with asyncio.timeout(self.service.start_seconds):
                while process.returncode is None:
                    if await self.service.healthy() and process.returncode is None:
                        return True
                    await asyncio.sleep(HEALTH_INTERVAL)
        except TimeoutError:
            log = self.service.layout.log(name)
            raise StackError(f"{name} does not answer after {self.service.start_seconds:.0f} s (see {log})") from None
        return False

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    def _enter(self, state: State) -> None:
        self._state = state
        self._record()

    def _say(self, what: str, seconds: float | None = None) -> None:
        self._progress.step(self.service.name, what, seconds)


async def _raise_when(stop: asyncio.Event) -> None:
    await stop.wait()
    raise _StopRequested


def _as_sentence(error: BaseException) -> StackError:
    if isinstance(error, OSError):
        return StackError(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}")
    assert isinstance(error, StackError)
    return error


def _reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
