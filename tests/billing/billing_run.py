"""A billing run: users register, send messages concurrently, and all copies of their charges are compared."""

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp

from tests.billing.talker import Talker
from tests.reconcile.charges import ChargesReconciler, ChargesReport
from tests.stack.chat_client import register
from tests.stack.running_stack import RunningStack


@dataclass(frozen=True, slots=True)
class Plan:
    """`turns` by all users together, or a few more. The same seed gives the same messages and pauses."""

    turns: int
    users: int
    seed: int


async def run_billing(
    plan: Plan, stack: RunningStack, http: aiohttp.ClientSession, tell: Callable[[str], None] = lambda _: None
) -> list[ChargesReport]:
    """The reports of all users, in order."""
    async with AsyncExitStack() as connected:
        talkers = []
        for number in range(plan.users):
            user = await register(http, stack.url, f"Payer {number}")
            devices = [await connected.enter_async_context(user.connect()) for _ in range(2)]
            chance = random.Random(f"{plan.seed} {number}")
            talkers.append(Talker(user, (devices[0], devices[1]), chance))
        each, more = divmod(plan.turns, plan.users)
        await asyncio.gather(
            *(talker.talk(each + (number < more)) for number, talker in enumerate(talkers)),
        )
        tell("all turns have ended")
        reconciler = ChargesReconciler(stack, http)
        return list(await asyncio.gather(*(reconciler.of(talker) for talker in talkers)))
