"""The long marathon: `uv run python -m tests.faults --turns 50 --users 5`. Prints counts and the slowest statements;
ends with 1 if any count is wrong.

Two servers around one Redis are killed, deployed, frozen and both killed at once, while users send messages to both.
"""

import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import click

from tests.conftest import shared_stack
from tests.faults.marathon import Disruption, Marathon, Plan
from tests.reconcile.conversations import NAMES, ConversationReconciler
from tests.reconcile.report import disagreements, table
from tests.stack.own_server import ServerProcess, server_environment
from tests.stack.own_supabase import own_supabase
from tests.stack.statement_log import logged_statements
from tests.stack.statement_log import table as statement_table

KINDS: Final[tuple[Disruption, ...]] = ("kill", "kill", "kill", "deploy", "freeze", "blackout")

STATEMENTS: Final = 50
"""How many of the slowest statements are printed."""


@click.command()
@click.option("--turns", default=50, show_default=True)
@click.option("--users", default=5, show_default=True)
@click.option("--disruptions", default=24, show_default=True, help="Kills, deploys, freezes and blackouts together.")
@click.option("--seed", type=int, default=lambda: int(time.time()), help="The same messages and disruptions again.")
def main(turns: int, users: int, disruptions: int, seed: int) -> None:
    """Run the marathon on the local stack, which is started unless it runs."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    plan = Plan(users, turns, disruptions, seed, KINDS)
    logs = Path(tempfile.mkdtemp(prefix="marathon-"))
    print(f"{plan}\nlogs in {logs}", flush=True)
    with shared_stack() as stack, own_supabase(stack, "marathon") as supabase:
        database = urlsplit(supabase["SUPABASE_DB_URL"]).path.removeprefix("/")
        with logged_statements(stack, database) as statements:
            status = asyncio.run(run(plan, server_environment(stack, supabase), logs))
    print(f"the slowest statements:\n{statement_table(statements[:STATEMENTS])}", flush=True)
    sys.exit(status)


async def run(plan: Plan, env: dict[str, str], logs: Path) -> int:
    """Whether something is wrong."""
    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=None)
    with ServerProcess(env, logs / "a.log") as first, ServerProcess(env, logs / "b.log") as second:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http,
            Marathon(plan, http, [first, second], report=_report) as marathon,
        ):
            await marathon.run()
            print(f"{time.monotonic() - began:.0f} s, {dict(marathon.disruptions)}", flush=True)
            reports = [await ConversationReconciler(env, http).of(talker) for talker in marathon.talkers]
    print(table(NAMES, [report.counts for report in reports]), flush=True)
    wrong = disagreements(reports)
    print("\n".join(wrong) or "Nothing is lost, nothing happened twice.", flush=True)
    return bool(wrong)


def _report(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


if __name__ == "__main__":
    main()
