"""The supervisor with small real processes: order, restarts, and no process left at the end."""

import asyncio
import os
import re
import signal

import pytest

from server.stack import supervisor as supervision
from server.stack import timeline
from server.stack.errors import StackError
from server.stack.instance import ServiceState, State
from server.stack.layout import Layout
from server.stack.progress import ProgressLog
from server.stack.service import Service
from server.stack.supervisor import Supervisor
from tests.unit.stack.small_services import (
    FAIL,
    IGNORE_SIGTERM,
    States,
    Uninstallable,
    events,
    small,
    wait_until_gone,
)


@pytest.fixture(autouse=True)
def _restart_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "RESTART_DELAYS", (0.0,))
    monkeypatch.setattr(supervision, "HEALTH_INTERVAL", 0.01)


async def run_until_ready(layout: Layout, services: list[Service]) -> States:
    """Start the services, and stop them as soon as all are ready."""
    states, stop = States(), asyncio.Event()

    async def ready() -> None:
        stop.set()

    await Supervisor(services, ProgressLog(layout), states).run(stop, ready)
    return states


async def test_a_service_starts_after_its_dependencies_and_stops_before_them(layout: Layout) -> None:
    await run_until_ready(
        layout,
        [small(layout, "roof", needs=("walls",)), small(layout, "walls", needs=("ground",)), small(layout, "ground")],
    )
    assert events(layout) == [
        *("ground started", "walls started", "roof started"),
        *("roof stopped", "walls stopped", "ground stopped"),
    ]


async def test_a_service_that_waited_says_for_which(layout: Layout) -> None:
    services: list[Service] = [small(layout, "ground"), small(layout, "roof", needs=("ground",))]
    await run_until_ready(layout, services)
    log = layout.log("stack").read_text()
    assert "roof      ready after ground (" in log
    assert "ground    ready (" in log


async def test_the_critical_path_ends_with_the_service_that_was_ready_last(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "LONG_SECONDS", 0.0)
    services: list[Service] = [small(layout, "roof", needs=("ground",)), small(layout, "ground")]
    stop, path = asyncio.Event(), ""
    supervisor = Supervisor(services, ProgressLog(layout), States())

    async def ready() -> None:
        nonlocal path
        path = supervisor.critical_path()
        stop.set()

    await supervisor.run(stop, ready)
    assert re.fullmatch(r"ground: install .*; roof: prepare \d+ s, start \d+ s", path)


async def test_every_service_ends_as_stopped_without_a_process(layout: Layout) -> None:
    states = await run_until_ready(layout, [small(layout, "one"), small(layout, "two")])
    assert [(state.state, state.pid) for state in states.now] == [(State.STOPPED, None)] * 2


async def test_a_service_that_exits_is_restarted_and_logged(layout: Layout) -> None:
    states, stop = States(), asyncio.Event()
    died: list[int] = []

    def kill() -> None:
        pid = next(state.pid for state in states.now if state.name == "mortal")
        assert pid is not None
        died.append(pid)
        os.kill(pid, signal.SIGKILL)

    def runs_again(now: dict[str, ServiceState]) -> bool:
        return bool(died) and now["mortal"].state is State.RUNNING and now["mortal"].pid not in (None, *died)

    async def ready() -> None:
        states.when(runs_again, stop.set)
        kill()

    async with asyncio.timeout(300):
        await Supervisor([small(layout, "mortal")], ProgressLog(layout), states).run(stop, ready)
    log = layout.log("stack").read_text()
    assert "died (signal 9); restarting" in log
    assert "running again" in log


async def test_a_service_that_cannot_start_ends_the_stack_with_its_last_line(layout: Layout) -> None:
    with pytest.raises(StackError, match=r"ship does not start: this service always fails \(more in .*ship\.log\)"):
        await run_until_ready(layout, [small(layout, "port_"), small(layout, "ship", FAIL, needs=("port_",))])
    assert events(layout)[-1] == "port_ stopped"


async def test_an_installation_that_fills_the_disk_is_one_sentence(layout: Layout) -> None:
    with pytest.raises(StackError, match=r"^/somewhere cannot be used: No space left on device$"):
        await run_until_ready(layout, [small(layout, "other"), Uninstallable(layout, "/somewhere")])


async def test_a_service_that_never_becomes_healthy_ends_the_stack(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = small(layout, "silent", "import signal; signal.pause()")
    monkeypatch.setattr(type(silent), "start_seconds", 0.05)
    with pytest.raises(StackError, match="silent does not answer"):
        await run_until_ready(layout, [silent])


async def test_kill_all_kills_a_service_that_does_not_stop(layout: Layout) -> None:
    states, stop = States(), asyncio.Event()
    stubborn = small(layout, "stubborn", IGNORE_SIGTERM)
    supervisor = Supervisor([stubborn], ProgressLog(layout), states)
    pids: list[int] = []

    async def ready() -> None:
        pids.extend(state.pid for state in states.now if state.pid)
        states.when(lambda now: now["stubborn"].state is State.STOPPING, supervisor.kill_all)
        stop.set()

    async with asyncio.timeout(300):
        await supervisor.run(stop, ready)
    assert wait_until_gone(pids[0])


async def test_a_stop_during_the_start_leaves_no_process(layout: Layout) -> None:
    states, stop = States(), asyncio.Event()
    pids: list[int] = []

    def stop_now() -> None:
        pids.extend(state.pid for state in states.now if state.pid)
        stop.set()

    async def never() -> None:
        raise AssertionError("it was never ready")

    states.when(lambda now: now["slow"].pid is not None, stop_now)
    slow = small(layout, "slow", "import signal; signal.pause()")
    await Supervisor([slow, small(layout, "quick")], ProgressLog(layout), states).run(stop, never)
    assert all(wait_until_gone(pid) for pid in pids)
    assert {state.state for state in states.now} == {State.STOPPED}
