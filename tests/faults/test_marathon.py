"""Two servers, users with a device on each, and kills at random moments: nothing is lost, and nothing happens twice.

The long run is a command: `uv run python -m tests.faults --turns 50 --users 5`.
"""

import aiohttp

from tests.conftest import NewServer
from tests.faults.marathon import Marathon, Plan
from tests.faults.reckoning import Reckoning, table


async def test_conversations_survive_kills_of_either_server_at_random_moments(
    server_env: dict[str, str], new_server: NewServer, http: aiohttp.ClientSession
) -> None:
    servers = [await new_server("a"), await new_server("b")]
    async with Marathon(Plan(users=2, turns=8, blows=3, seed=1), http, servers) as marathon:
        await marathon.run()
        reckoning = Reckoning(server_env, http)
        accounts = [await reckoning.of(talker) for talker in marathon.talkers]
    told = "\n".join([table(accounts), *marathon.diary])
    assert [account.wrong for account in accounts] == [[], []], told
    assert sum(account.sent for account in accounts) == 8
