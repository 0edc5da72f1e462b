"""The run of all benchmarks."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.bench import everything
from tests.bench.table import Row

FIGURE = Row("a figure", "1 ms")


def hang_in_asyncio() -> list[Row]:
    asyncio.run(asyncio.Event().wait())
    return []


def hang_outside_of_a_loop() -> list[Row]:
    while True:
        time.sleep(60)


def hang_in_its_clean_up() -> list[Row]:
    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    asyncio.run(wait())
    return []


@pytest.mark.parametrize("hang", [hang_in_asyncio, hang_outside_of_a_loop, hang_in_its_clean_up])
def test_a_benchmark_that_hangs_fails_and_the_others_run(
    hang: Callable[[], list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everything, "LONGEST_SECONDS", 0.2)
    monkeypatch.setattr("tests.bench.processes._AGAIN_SECONDS", 0.2)
    handler = signal.getsignal(signal.SIGALRM)
    assert everything._run({"hangs": hang, "works": lambda: [FIGURE]}) == ([FIGURE], ["hangs"])
    assert signal.getsignal(signal.SIGALRM) is handler


@contextmanager
def stack_that_does_not_start() -> Iterator[None]:
    raise RuntimeError("no PostgreSQL")
    yield


@contextmanager
def stack_that_does_not_stop() -> Iterator[None]:
    yield
    raise RuntimeError("it does not end")


@pytest.mark.parametrize(
    ("stack", "figures"), [(stack_that_does_not_start, ["alone"]), (stack_that_does_not_stop, ["alone", "on it"])]
)
def test_a_stack_that_fails_leaves_the_other_figures(
    stack: Callable[[], object], figures: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(everything, "shared_stack", stack)
    monkeypatch.setattr(everything, "ALONE", {"relay": lambda: [Row("alone", "1 ms")]})
    monkeypatch.setattr(everything, "ON_THE_STACK", {"turn": lambda: [Row("on it", "2 ms")]})
    assert everything.main(("relay", "turn"), markdown=True) == 1
    printed = capsys.readouterr().out
    assert [name for name in ("alone", "on it") if f"| {name} |" in printed] == figures
    assert "failed: the stack" in printed
