"""A bounded run of each kind of random input, and the tally that judges it: it must see what is wrong."""

import gc
import io
import weakref

import aiohttp
import pytest

from tests.fuzz.run import run
from tests.fuzz.server import MARK, Identity, Report, Server, Target
from tests.fuzz.target import MEMORY_GROWTH, Tally

INPUTS = 4_000
KINDS = {
    *("requests", "sequences", "frames", "event streams"),
    *("damaged requests", "ambiguous requests", "broken frames", "slow requests"),
}
USER, ADMIN = Identity("a user", "token-of-the-user"), Identity("an admin", "token-of-the-admin")
TARGET = Target(0, (USER, ADMIN), {"token of an admin": "token-of-the-admin"}, "a-turn")
QUIET = Report((), 0, 0, "")


def test_no_input_fails_the_server_leaks_anything_or_leaves_a_task() -> None:
    tally = run(INPUTS, seed=1)
    assert tally.findings == {}, tally.summary()
    assert set(tally.inputs) == KINDS
    assert tally.total >= INPUTS
    assert {200, 400, 401, 403, 404} <= set(tally.answers)


async def test_nothing_of_the_last_application_stays_in_memory_when_the_server_is_renewed() -> None:
    server = Server(io.StringIO())
    target = await server.renew()
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{target.port}/health") as answer:
        assert answer.status == 200
    assert server.world is not None
    last = weakref.ref(server.world.hub)
    await server.renew()
    gc.collect()
    is_in_memory = last() is not None
    await server.aclose()
    assert not is_in_memory


def test_a_run_begins_no_chunk_after_its_time() -> None:
    assert run(2_000, seed=1, seconds=0).total == 0


def _judged(status: int = 200, text: str = "", who: Identity = USER, path: str = "/api/v1/auth/me") -> Tally:
    tally = Tally()
    tally.judge(TARGET, who, path, status, text)
    return tally


def test_an_answer_of_the_server_s_own_fault_is_a_finding() -> None:
    assert _judged(500).server_errors == 1
    assert list(_judged(503).findings) == ["503 for /api/v1/auth/me"]


@pytest.mark.parametrize("text", [f"hello {MARK}", "Bearer token-of-the-admin"])
def test_another_users_data_and_a_secret_are_leaks(text: str) -> None:
    assert _judged(text=text).leaks == 1


def test_an_operator_may_see_users_in_the_operators_part_alone() -> None:
    assert _judged(text=MARK, who=ADMIN, path="/api/v1/admin/users").findings == {}
    assert _judged(text=MARK, who=ADMIN).leaks == 1
    assert _judged(text=MARK, path="/api/v1/admin/users").leaks == 1


@pytest.mark.parametrize(
    "report",
    [
        Report(("turn of nobody",), 0, 0, ""),
        Report((), 1, 0, ""),
        Report((), 0, 0, '{"event": "http.failed", "level": "error"}'),
        Report((), 0, 0, f'{{"event": "x", "text": "{MARK}"}}'),
    ],
)
def test_a_task_a_connection_an_error_or_a_secret_that_is_left_is_a_finding(report: Report) -> None:
    tally = Tally()
    tally.settle(TARGET, QUIET)
    assert tally.findings == {}
    tally.settle(TARGET, report)
    assert len(tally.findings) == 1


def test_growth_of_the_memory_and_many_limited_answers_are_findings() -> None:
    tally = Tally(memory=[0, 0, MEMORY_GROWTH + 1])
    tally.answers.update({200: 90, 429: 10})
    tally.conclude()
    assert len(tally.findings) == 2
    assert tally.summary().count("WRONG") == 2
