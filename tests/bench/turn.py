"""What a turn of five words costs: the server's processor time beside users who talk without pause, and its calls."""

import asyncio
import re
import time
from collections import Counter
from typing import Final
from urllib.parse import urlsplit

from tests.bench.flame import recorded
from tests.bench.own_platform import Platform, own_platform, users_with_agents
from tests.bench.processes import cpu_seconds
from tests.bench.table import Row, at_most
from tests.faults.failing_world import FailingWorld, server_behind_proxies
from tests.faults.http_faults import FaultProxy
from tests.stack.chat_client import ChatUser

AIM_MS: Final = 10.0
MESSAGE: Final = "ECHO one two three four five"
SETTLED_SECONDS: Final = 8.0
"""After so long by default the costs of the last turn have been read, too."""
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27,}|(?<=/)(?:agent|conv|run|user|key)-[\w-]+")


def main(users: int, seconds: float, turns: int, settle: float = SETTLED_SECONDS) -> list[Row]:
    """Print the processor time per turn, and the calls of a turn."""
    return asyncio.run(_measure(users, seconds, turns, settle))


async def _measure(users: int, seconds: float, turns: int, settle: float) -> list[Row]:
    async with own_platform() as platform:
        cost = await _cost(platform, users, seconds)
        calls = await _calls(platform, turns, settle)
    rows = [at_most("CPU of the server per turn of five words", cost, AIM_MS, "ms")]
    for service, found in calls.items():
        print(f"{service}: {found.total() / turns:.1f} calls a turn")
        for path, count in found.most_common():
            print(f"{count / turns:8.1f} {path}")
        rows.append(Row(f"Calls of {service} per turn", f"{found.total() / turns:.1f}"))
    return rows


async def _cost(platform: Platform, number: int, seconds: float) -> float:
    """Milliseconds of the server's processor time per turn while `number` users talk without pause."""
    with platform.servers("server") as (server,):
        await server.ready()
        users = await users_with_agents(platform, server, number)
        await asyncio.gather(*(user.say(MESSAGE) for user in users))
        with recorded(server.pid):
            used, until = cpu_seconds(server.pid), time.monotonic() + seconds
            turns = sum(await asyncio.gather(*(_talk(user, until) for user in users)))
            used = cpu_seconds(server.pid) - used
    print(f"{turns} turns of {number} users in {seconds:.0f} s: {turns / seconds:.1f} turns/s, ", end="")
    print(f"{used / turns * 1000:.1f} ms of the server's CPU each", flush=True)
    return used / turns * 1000


async def _talk(user: ChatUser, until: float) -> int:
    """Talk on one socket. Returns the number of turns, one at least."""
    turns = 0
    async with user.connect() as device:
        while not turns or time.monotonic() < until:
            await device.end_of((await device.say(MESSAGE))["turn_id"])
            turns += 1
    return turns


async def _calls(platform: Platform, turns: int, settle: float) -> dict[str, Counter[str]]:
    """The calls that so many turns of one user make at each service, beside those that an idle server makes. `settle`:
    seconds after the last turn in which its calls are still counted."""
    same_model = {"LITELLM_URL_FOR_LETTA": platform.env["LITELLM_BASE_URL"]}  # else it would repair all agents
    log = platform.logs / "proxies.log"
    async with server_behind_proxies(platform.stack, platform.env, log, **same_model) as world:
        (user,) = await users_with_agents(platform, world.server, 1)
        async with user.connect() as device:
            await device.end_of((await device.say(MESSAGE))["turn_id"])
            await asyncio.sleep(settle)
            _forget(world)
            began = time.monotonic()
            for _ in range(turns):
                await device.end_of((await device.say(MESSAGE))["turn_id"])
            await asyncio.sleep(settle)
            seconds, busy = time.monotonic() - began, _seen(world)
            _forget(world)
            await asyncio.sleep(settle)
            idle = _seen(world)
    share = seconds / settle
    return {name: Counter(_without(found, idle[name], share)) for name, found in busy.items()}


def _proxies(world: FailingWorld) -> dict[str, FaultProxy]:
    return {"Supabase": world.supabase, "LiteLLM": world.litellm, "Letta": world.letta}


def _forget(world: FailingWorld) -> None:
    for proxy in _proxies(world).values():
        proxy.seen.clear()


def _seen(world: FailingWorld) -> dict[str, Counter[str]]:
    """The requests at each service, by method and path without ids and queries."""
    return {
        name: Counter(f"{one.method} {_ID.sub('…', urlsplit(one.path).path)}" for one in proxy.seen)
        for name, proxy in _proxies(world).items()
    }


def _without(found: Counter[str], idle: Counter[str], share: float) -> dict[str, int]:
    """What is left of the calls without `share` times the idle ones."""
    left = {path: count - round(idle[path] * share) for path, count in found.items()}
    return {path: count for path, count in left.items() if count > 0}
