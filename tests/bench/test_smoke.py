"""Each benchmark once, with tiny numbers: it runs, and prints its lines. No time is asserted."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bench.__main__ import main
from tests.stack.running_stack import RunningStack

TINY = ("--sessions", "2", "--chunks", "4", "--rounds", "1")
WITHOUT_SERVICES = {
    "relay": (TINY, ("    bare ", "    ours: ")),
    "specified": (TINY, ("      bare ", "      ours ", " specified ", "specified: ")),
    "load": (("--sessions", "2", "--chunks", "4"), ("20 chunks/s: ", "40 chunks/s: ", "0 streams incomplete")),
    "idle": (("--connections", "20"), ("  bare: ", "  ours: ", "ours / bare: ")),
    "idle-many": (("--connections", "5", "--seconds", "0.1"), ("5 idle sockets: ", "5 still open")),
}
WITH_SERVICES = {
    "redis": (TINY, ("    alone ", "    owner ", " Redis ", "times one alone")),
    "first-token": (("--rounds", "1"), ("Letta directly: ", "through us: ", "cold session: ", "follower: ")),
    "turn": (
        ("--users", "1", "--seconds", "0.1", "--turns", "2", "--settle", "1"),
        ("turns of 1 users", "Supabase: ", "POST /rest/v1/rpc/accept_turn"),
    ),
    "letta": (("--users", "1", "--seconds", "0.1", "--rounds", "1"), ("Letta here: ", "CPU ms per turn")),
    "registration": (
        ("--users", "2", "--streams", "1", "--quiet", "0.1", "--real", "1"),
        (
            "2 registrations at once, own services",
            "1 registrations at once, real ones",
            "conversation",
            "median sign-in: ",
        ),
    ),
    "growth": (("--messages", "10"), ("history, newest page", "accept and start a turn")),
}


@pytest.mark.parametrize("name", WITHOUT_SERVICES)
def test_a_benchmark_without_services_prints_its_lines(name: str) -> None:
    options, lines = WITHOUT_SERVICES[name]
    assert_prints(name, options, lines)


@pytest.mark.parametrize("name", WITH_SERVICES)
def test_a_benchmark_on_the_stack_prints_its_lines(name: str, stack: RunningStack) -> None:
    options, lines = WITH_SERVICES[name]
    assert_prints(name, options, lines)


def test_a_benchmark_draws_a_flame_graph_of_what_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_FLAMES", "")  # restored at the end
    options = ("--folder", str(tmp_path), "sse", "--sessions", "2", "--chunks", "40", "--rounds", "1")
    assert_prints("flame", options, ("lame graph: ", " WebSocket ", "       SSE ", "SSE costs "))


def assert_prints(name: str, options: tuple[str, ...], lines: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [name, *options], catch_exceptions=False)
    missing = [line for line in lines if line not in done.output]
    assert (done.exit_code, missing) == (0, []), done.output
