"""Two servers, users with a device on each, and kills at random moments: nothing is lost, and nothing happens twice.

The long run is a command: `uv run python -m tests.faults --turns 50 --users 5`.
"""

import aiohttp

from tests.conftest import NewServer
from tests.faults.marathon import Marathon, Plan
from tests.reconcile.conversations import NAMES, ConversationReconciler
from tests.reconcile.report import table


async def test_conversations_survive_kills_of_either_server_at_random_moments(
    server_env: dict[str, str], new_server: NewServer, http: aiohttp.ClientSession
) -> None:
    servers = [await new_server("a"), await new_server("b")]
    async with Marathon(Plan(users=2, turns=8, blows=3, seed=1), http, servers) as marathon:
        await marathon.run()
        reconciler = ConversationReconciler(server_env, http)
        reports = [await reconciler.of(talker) for talker in marathon.talkers]
    told = "\n".join([table(NAMES, [report.counts for report in reports]), *marathon.diary])
    assert [report.wrong for report in reports] == [[], []], told
    assert sum(report.counts["sent"] for report in reports) == 8
