"""`chat billing` on the real services: it finds changed rows, call by call, and corrects them."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import aiohttp
import psycopg
import pytest

from tests.stack.bookkeeper import Book, Bookkeeper, shown
from tests.stack.charges import REMEMBER
from tests.stack.chat_client import ChatUser, register
from tests.stack.forked import run_chat
from tests.stack.running_stack import RunningStack


@dataclass(frozen=True, slots=True)
class Payer:
    """A user with settled turns, and an operator who can change their rows and run commands."""

    stack: RunningStack
    user: ChatUser
    keeper: Bookkeeper

    async def book(self) -> Book:
        return await self.keeper.read(self.user)

    async def change(self, statement: str, *values: Any) -> None:
        async with await psycopg.AsyncConnection.connect(self.stack.env["SUPABASE_DB_URL"]) as connection:
            await connection.execute(statement.encode(), values)

    async def command(self, *arguments: str) -> tuple[int, str]:
        """(exit code, output) of `chat billing …`."""
        done = await asyncio.to_thread(run_chat, "billing", *arguments, env=os.environ | self.stack.env)
        return done.returncode, done.stdout + done.stderr

    async def audit(self) -> tuple[int, str]:
        return await self.command("audit", self.user.id)

    async def settle(self) -> None:
        code, output = await self.command("settle", self.user.id)
        assert (code, output.split(" since ")[0]) == (0, "1 users settled")


@pytest.fixture(scope="module")
async def settled_payer(stack: RunningStack) -> AsyncIterator[Payer]:
    async with aiohttp.ClientSession() as http:
        user = await register(http, stack.url)
        for text in ("ECHO one", REMEMBER, "ECHO three"):
            await user.say(text)
        yield Payer(stack, user, Bookkeeper(stack.env, http))


@pytest.fixture
async def payer(settled_payer: Payer) -> Payer:
    """The same user in every test; each test leaves a correct ledger. No server reconciles it."""
    assert (await settled_payer.keeper.settled(settled_payer.user)).wrong == []
    await settled_payer.change(
        "update public.billing_accounts set look_at = null where user_id = %s", settled_payer.user.id
    )
    return settled_payer


async def test_an_audit_of_a_correct_ledger_finds_no_difference(payer: Payer) -> None:
    book = await payer.book()
    code, output = await payer.audit()
    cost = f"${sum(call.cost for call in book.calls.values()):f}"
    [line, total] = output.splitlines()
    assert code == 0, output
    assert line.split() == [
        payer.user.id, "4", "calls", cost, "4", "rows", cost, "0", "waiting,", "0", "written", "off,", "0", "flagged",
        "agrees",
    ]  # fmt: skip
    assert total.split()[1:] == line.split()[1:]


async def test_an_audit_of_all_users_reports_each_difference(
    own_stack: RunningStack, http: aiohttp.ClientSession, bob: ChatUser
) -> None:
    payer = Payer(own_stack, bob, Bookkeeper(own_stack.env, http))
    await bob.say("ECHO one")
    assert (await payer.keeper.settled(bob)).wrong == []
    code, output = await payer.command("audit", "--all")
    [own] = [line for line in output.splitlines() if line.startswith(payer.user.id)]
    assert own.endswith(" agrees")
    assert code == any(line.endswith(" DIFFERS") for line in output.splitlines()), output


async def test_a_changed_row_changes_all_derived_figures_and_is_found_and_corrected(payer: Payer) -> None:
    before = await payer.book()
    [call] = before.of_turn(turn_id := str(before.turns[0]["id"]))
    await payer.change("update public.ledger set cost = cost + 1 where request_id = %s", call.request_id)

    turn = await payer.user.get(f"/chat/turns/{turn_id}")
    usage = await payer.user.get("/user/usage")
    assert (Decimal(turn["cost"]), Decimal(turn["message"]["cost"])) == (shown(call.cost + 1), round(call.cost + 1, 6))
    assert Decimal(usage["total"]["cost"]) == Decimal(before.usage["total"]["cost"]) + 1
    day = call.started_at.date().isoformat()
    assert cost_on(day, usage) == cost_on(day, before.usage) + 1
    code, output = await payer.audit()
    assert code == 1
    assert output.splitlines()[0].endswith(" DIFFERS")
    assert output.splitlines()[1:-1] == [f"  different: {call.request_id}"]

    await payer.settle()
    assert (await payer.audit())[0] == 0
    assert (await payer.book()).wrong == []


def cost_on(day: str, usage: Any) -> Decimal:
    """The cost of a day, in US dollars."""
    return next(Decimal(one["cost"]) for one in usage["days"] if one["date"] == day)


@pytest.mark.parametrize("number", [0, 1], ids=["of one call", "of two calls"])
async def test_a_deleted_row_is_reported_and_entered_again_for_its_turn(payer: Payer, number: int) -> None:
    before = await payer.book()
    calls = before.of_turn(turn_id := str(before.turns[number]["id"]))
    await payer.change("delete from public.ledger where request_id = %s", calls[0].request_id)

    turn = await payer.user.get(f"/chat/turns/{turn_id}")
    assert Decimal(turn["cost"]) == shown(sum((call.cost for call in calls[1:]), Decimal(0)))
    code, output = await payer.audit()
    assert (code, output.splitlines()[1:-1]) == (1, [f"  missing: {calls[0].request_id}"])

    await payer.settle()
    after = await payer.book()
    assert (after.wrong, after.of_turn(turn_id)) == ([], calls)
    assert (await payer.audit())[0] == 0


async def test_a_row_that_litellm_does_not_have_is_reported_and_not_deleted(payer: Payer) -> None:
    before = await payer.book()
    turn = before.turns[0]
    await payer.change(
        "insert into public.ledger (user_id, turn_id, attempt, request_id, status, source, outcome, model, cost,"
        " started_at) values (%s, %s, 1, %s, 'settled', 'litellm', 'success', 'gpt-4', 0.5, now())",
        payer.user.id, turn["id"], surplus := f"invented-{turn['id']}",
    )  # fmt: skip
    assert (await payer.book()).turn(str(turn["id"]))["cost"] == turn["cost"] + Decimal("0.5")
    await payer.settle()
    code, output = await payer.audit()
    assert (code, output.splitlines()[1:-1]) == (1, [f"  surplus: {surplus}"])

    await payer.change("delete from public.ledger where request_id = %s", surplus)
    assert (await payer.audit())[0] == 0
    assert (await payer.book()).wrong == []
