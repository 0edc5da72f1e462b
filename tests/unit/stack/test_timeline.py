"""How long a start took, as `chat up` prints it."""

import pytest

from server.stack import timeline
from server.stack.timeline import Step, Timeline


class Clock:
    """Replaces the clock of the timelines."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def start(self, name: str, **seconds: float) -> Timeline:
        """The timeline of a service whose steps took so long."""
        started = Timeline(name)
        for step, took in seconds.items():
            with started.step(Step(step)):
                self.now += took
        return started


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timeline, "time", clock)
    return clock


def test_the_critical_path_has_the_steps_that_others_waited_for_in_order(clock: Clock) -> None:
    letta = clock.start("letta", install=3.2, prepare=0.1, start=20.4)
    server = clock.start("server", prepare=0.0, start=1.3)
    server.waited_for = letta
    assert server.critical_path() == ["letta: install 3 s, start 20 s", "server: start 1 s"]


def test_an_installation_that_ended_before_the_dependency_was_ready_delayed_nothing(clock: Clock) -> None:
    supabase = clock.start("supabase", install=8.0, prepare=1.6, start=1.0)
    supabase.waited_for = clock.start("postgres", start=0.3)
    assert supabase.critical_path() == ["supabase: prepare 2 s, start 1 s"]


def test_all_attempts_of_a_step_count(clock: Clock) -> None:
    started = Timeline("letta")
    for _ in range(2):
        with started.step(Step.START):
            clock.now += 5
    assert started.critical_path() == ["letta: start 10 s"]


def test_a_step_in_progress_has_no_time_yet(clock: Clock) -> None:
    started = Timeline("letta")
    with started.step(Step.START):
        clock.now += 5
        assert started.critical_path() == []
    assert started.critical_path() == ["letta: start 5 s"]
    assert started.ended == clock.now
