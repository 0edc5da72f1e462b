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
    async with Marathon(Plan(users=2, turns=8, disruptions=3, seed=1), http, servers) as marathon:
        await marathon.run()
        reconciler = ConversationReconciler(server_env, http)
        reports = [await reconciler.of(talker) for talker in marathon.talkers]
    report = "\n".join([table(NAMES, [one.counts for one in reports]), *marathon.record])
    assert [one.wrong for one in reports] == [[], []], report
    assert sum(one.counts["sent"] for one in reports) == 8
