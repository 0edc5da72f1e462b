"""Users who talk at random, and the books of all of them. The long run is a command: `python -m tests.billing`."""

import aiohttp

from tests.billing.evening import Plan, spend
from tests.billing.reckoning import disagreements, table
from tests.stack.running_stack import RunningStack


async def test_whatever_users_do_all_books_agree_to_the_last_digit(
    stack: RunningStack, http: aiohttp.ClientSession
) -> None:
    accounts = await spend(Plan(turns=24, users=3, seed=1), stack, http)
    assert disagreements(accounts) == [], table(accounts)
    assert sum(account.counts["turns"] for account in accounts) >= 24
