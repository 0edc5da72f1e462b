"""Users who send random messages, and the books of all of them. The long run is a command: `python -m
tests.billing`."""

import aiohttp

from tests.billing.billing_run import Plan, run_billing
from tests.reconcile.charges import disagreements, table
from tests.stack.running_stack import RunningStack


async def test_all_copies_of_every_charge_agree_whatever_users_do(
    stack: RunningStack, http: aiohttp.ClientSession
) -> None:
    reports = await run_billing(Plan(turns=24, users=3, seed=1), stack, http)
    assert disagreements(reports) == [], table(reports)
    assert sum(report.counts["turns"] for report in reports) >= 24
