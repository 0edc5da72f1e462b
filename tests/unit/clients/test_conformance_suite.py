"""clients/conformance: what a driver is told when a scenario fails."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from clients.conformance import scenarios
from clients.conformance.run import Run, Violation
from clients.conformance.server import create_app


async def test_a_scenario_that_failed_says_why_and_waits_for_no_more_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(run: Run) -> None:
        await run.shows(connection="online")
        raise Violation("broke a rule")

    monkeypatch.setitem(scenarios.SCENARIOS, "fails", ("a rule", fails))
    async with TestClient(TestServer(create_app())) as driver:
        run = (await (await driver.post("/runs", json={"scenario": "fails"})).json())["run"]
        first = driver.post(f"/runs/{run}/report", json={"connection": "online"})
        assert (await (await first).json())["accepted"]
        late = driver.post(f"/runs/{run}/report", json={"connection": "online"})
        assert (await (await late).json())["accepted"]
        actions = [await (await driver.get(f"/runs/{run}/next")).json() for _ in range(2)]
    assert actions == [
        {"do": "report"},
        {"do": "end", "passed": False, "problem": "Violation: broke a rule"},
    ]
