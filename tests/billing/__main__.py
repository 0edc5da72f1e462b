"""The long run: `uv run python -m tests.billing --turns 300 --users 10`. Prints figures; ends with 1 if any differ."""

import asyncio
import signal
import sys
import time

import aiohttp
import click

from tests.billing.billing_run import Plan, run_billing
from tests.conftest import shared_stack
from tests.reconcile.charges import disagreements, table
from tests.stack.running_stack import RunningStack


@click.command()
@click.option("--turns", default=300, show_default=True, help="By all users together.")
@click.option("--users", default=10, show_default=True)
@click.option("--seed", type=int, default=lambda: int(time.time()), help="The same messages and pauses again.")
def main(turns: int, users: int, seed: int) -> None:
    """Send messages on the local stack, which is started unless it runs, and compare the books."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    plan = Plan(turns, users, seed)
    print(plan, flush=True)
    with shared_stack() as stack:
        sys.exit(asyncio.run(run(plan, stack)))


async def run(plan: Plan, stack: RunningStack) -> int:
    """Whether anything differs."""
    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:
        reports = await run_billing(plan, stack, http, lambda what: _tell(f"{time.monotonic() - began:.0f} s: {what}"))
    print(table(reports), flush=True)
    wrong = disagreements(reports)
    print("\n".join(wrong) or "All books agree, to the last digit.", flush=True)
    return bool(wrong)


def _tell(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    main()
