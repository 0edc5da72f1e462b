"""What admins read and change of accounts, who is an admin, and the record of all of it."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from server.ports import AccountChange, AccountFilter, Actor, AdminStore, Budget, DayOfAll, UsageOfAll
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, TurnStatus
from tests.contract.stores.calls import call, charged
from tests.contract.stores.chat import Chat
from tests.contract.stores.worlds import SupabaseWorld, World

COMMAND = Actor(None, "root@host")
NOBODY = str(uuid.uuid4())


@pytest.fixture
def admin(world: World) -> AdminStore:
    return world.admin


async def account(world: World) -> str:
    """A user with a profile."""
    user_id = await world.sign_up()
    await world.accounts.ensure(user_id, f"{user_id[:8]}@example.com", None)
    return user_id


async def is_admin(world: World, user_id: str) -> bool:
    found = await world.accounts.get(user_id)
    assert found
    return found.is_admin


async def actions_on(admin: AdminStore, user_id: str) -> list[tuple[str, str | None, str, str | None]]:
    """(action, actor, source, outcome), the newest first."""
    found = await admin.actions(user_id, None, 100)
    return [(one.action, one.actor_id, one.source, one.outcome) for one in found]


async def test_nobody_is_an_admin_by_what_users_write_themselves(world: World) -> None:
    user_id = await world.sign_up({"role": "admin", "app_metadata": {"role": "admin"}})
    await world.accounts.ensure(user_id, "eve@example.com", None)
    assert not await is_admin(world, user_id)


async def test_an_admin_is_made_and_removed_and_both_are_recorded(world: World, admin: AdminStore) -> None:
    ann, ben = await account(world), await account(world)
    await world.only_admins(ann)
    await admin.set_admin(ben, True, Actor(ann, "192.0.2.1"))
    assert await is_admin(world, ben)
    await admin.set_admin(ben, False, COMMAND)
    assert not await is_admin(world, ben)
    assert await actions_on(admin, ben) == [
        ("remove_admin", None, "root@host", "done"),
        ("make_admin", ann, "192.0.2.1", "done"),
    ]
    assert ("make_admin", ann, "192.0.2.1", "done") in await actions_on(admin, ann)


async def test_an_admin_has_a_profile(world: World, admin: AdminStore) -> None:
    user_id = await world.sign_up()
    await admin.set_admin(user_id, True, COMMAND)
    assert await is_admin(world, user_id)


@pytest.mark.parametrize("how", ["block", "remove"])
async def test_the_last_admin_stays(world: World, admin: AdminStore, how: str) -> None:
    async def try_it(user_id: str) -> None:
        if how == "block":
            await admin.block(user_id, None, COMMAND)
        else:
            await admin.set_admin(user_id, False, COMMAND)

    ann, ben, cy = await account(world), await account(world), await account(world)
    await world.only_admins(ann, ben)
    await world.set_status(ben, AgentStatus.BLOCKED)
    with pytest.raises(PlatformError) as refusal:
        await try_it(ann)
    assert refusal.value.code is ErrorCode.LAST_ADMIN
    assert await is_admin(world, ann)
    assert await actions_on(admin, ann) == []
    await admin.set_admin(cy, True, COMMAND)
    await try_it(ann)
    with pytest.raises(PlatformError):
        await try_it(cy)


async def test_of_two_admins_who_remove_each_other_at_once_one_stays(world: World, admin: AdminStore) -> None:
    for _ in range(5):
        ann, ben = await account(world), await account(world)
        await world.only_admins(ann, ben)
        results = await asyncio.gather(
            admin.set_admin(ann, False, Actor(ben, "a")),
            admin.block(ben, None, Actor(ann, "b")),
            return_exceptions=True,
        )
        assert [isinstance(one, PlatformError) for one in results].count(True) == 1


async def test_blocking_cancels_every_turn_and_refuses_new_ones(world: World, admin: AdminStore, chat: Chat) -> None:
    running = (await chat.say("one")).turn
    waiting = (await chat.say("two")).turn

    blocked = await admin.block(chat.user_id, "Spam", COMMAND)

    assert (blocked.agent_status, blocked.status_reason) == (AgentStatus.BLOCKED, "Spam")
    now = [await world.sessions.turn(chat.user_id, turn.id) for turn in (running, waiting)]
    assert now[0]
    assert now[1]
    assert (now[0].status, now[0].cancel_requested_at is not None) == (TurnStatus.RUNNING, True)
    assert now[1].status is TurnStatus.CANCELLED
    with pytest.raises(PlatformError) as refusal:
        await chat.say("three")
    assert refusal.value.code is ErrorCode.ACCOUNT_BLOCKED
    assert await world.sessions.closed_accounts([chat.user_id]) == [chat.user_id]
    [action] = await admin.actions(chat.user_id, None, 100)
    assert (action.action, action.details, action.outcome) == ("block", {"reason": "Spam"}, "done")


async def test_an_unblocked_account_is_as_ready_as_its_agent(world: World, admin: AdminStore) -> None:
    ready, unfinished = await account(world), await account(world)
    claim = await world.accounts.claim(ready, "me", 30)
    assert claim
    await world.accounts.record(claim, AccountChange(conversation_id="conv-1", config_hash="hash"))
    await world.accounts.release(claim)
    for user_id, status in ((ready, AgentStatus.ACTIVE), (unfinished, AgentStatus.PROVISIONING)):
        await admin.block(user_id, "Spam", COMMAND)
        opened = await admin.unblock(user_id, COMMAND)
        assert (opened.agent_status, opened.status_reason) == (status, None)
        assert (await admin.unblock(user_id, COMMAND)).agent_status is status
    failed = await account(world)
    await world.set_status(failed, AgentStatus.FAILED)
    assert (await admin.unblock(failed, COMMAND)).agent_status is AgentStatus.FAILED


async def test_unknown_and_deleted_users_are_not_found(world: World, admin: AdminStore) -> None:
    deleting = await account(world)
    await world.set_status(deleting, AgentStatus.DELETING)
    for user_id in (NOBODY, deleting):
        for attempt in (admin.block(user_id, None, COMMAND), admin.unblock(user_id, COMMAND)):
            with pytest.raises(PlatformError) as refusal:
                await attempt
            assert refusal.value.code is ErrorCode.NOT_FOUND
    for state in (True, False):
        with pytest.raises(PlatformError):
            await admin.set_admin(NOBODY, state, COMMAND)
    with pytest.raises(PlatformError):
        await admin.label_plan(NOBODY, "pro")
    assert await admin.details(NOBODY, 10) is None


async def test_accounts_are_found_newest_first_and_in_pages(world: World, admin: AdminStore) -> None:
    mark = uuid.uuid4().hex[:12]
    made = [await world.sign_up() for _ in range(5)]
    for number, user_id in enumerate(made):
        await world.set_address(user_id, f"{mark}_{number}%@example.com")
        await world.accounts.ensure(user_id, "", None)
        await world.let_pass(user_id, 1)
    await world.set_status(made[3], AgentStatus.FAILED)
    await world.only_admins(made[1])
    newest = made[::-1]

    async def found(wanted: AccountFilter, after: str | None = None, limit: int = 10) -> list[str]:
        return [one.account.user_id for one in await admin.search(wanted, after, limit)]

    assert await found(AccountFilter(mark.upper())) == newest
    assert await found(AccountFilter(mark), limit=2) == newest[:2]
    assert await found(AccountFilter(mark), after=newest[1], limit=2) == newest[2:4]
    assert await found(AccountFilter(mark), after=newest[4]) == []
    assert await found(AccountFilter(mark), after=NOBODY) == []
    assert await found(AccountFilter(f"{mark}_2%@")) == [made[2]]
    assert await found(AccountFilter(f"{mark}%2")) == []
    assert await found(AccountFilter(made[4].upper())) == [made[4]]
    assert await found(AccountFilter(mark, AgentStatus.FAILED)) == [made[3]]
    assert await found(AccountFilter(mark, admins_only=True)) == [made[1]]
    assert await found(AccountFilter("'; drop table x --")) == []


async def test_details_are_those_of_one_user(world: World, admin: AdminStore, chat: Chat) -> None:
    budget = Budget(Decimal(10), Decimal(0), "30d", datetime.now(UTC) + timedelta(days=3))
    turn = (await chat.say("one")).turn
    await world.ledger.store_budget(chat.user_id, budget)
    details = await admin.details(chat.user_id, 10)
    assert details
    assert (details.account.user_id, details.open_turns, details.errors) == (chat.user_id, 1, ())
    assert details.last_message_at == turn.created_at
    assert details.standing
    assert (details.standing.limit, details.standing.spent, details.standing.period) == (Decimal(10), Decimal(0), "30d")
    assert details.total.messages == 1
    [listed] = await admin.search(AccountFilter(chat.user_id), None, 10)
    assert (listed.account, listed.standing, listed.total) == (details.account, details.standing, details.total)
    fresh = await admin.details(await account(world), 10)
    assert fresh
    assert (fresh.standing, fresh.open_turns, fresh.last_message_at) == (None, 0, None)
    assert fresh.total.cost == 0


def of_day(usage: UsageOfAll) -> list[Decimal]:
    """Users, messages, tokens and cost of the day; zeros without one."""
    [day] = usage.days or [DayOfAll(datetime.now(UTC).date(), 0, 0, 0, Decimal(0))]
    return [Decimal(day.users), Decimal(day.messages), Decimal(day.tokens), day.cost]


async def test_usage_is_summed_over_all_users_by_day_and_model(world: World, admin: AdminStore) -> None:
    today = datetime.now(UTC).date()
    model = f"shared-{uuid.uuid4()}"
    before = of_day(await admin.usage(today, today))
    for text in ("ann's", "ben's"):
        chat = Chat(world, await world.sign_up())
        turn = (await chat.say(text)).turn
        await world.ledger.enter(chat.user_id, charged(turn, call("0.25", 100, 10, model=model)))
    usage = await admin.usage(today, today)
    assert [new - old for new, old in zip(of_day(usage), before, strict=True)] == [2, 2, 220, Decimal("0.5")]
    [used] = [one for one in usage.models if one.model == model]
    assert (used.date, used.model_calls, used.prompt_tokens, used.tokens) == (today, 2, 200, 220)
    assert (used.cost, used.background_cost) == (Decimal("0.5"), Decimal(0))
    assert (await admin.usage(today - timedelta(days=3650), today - timedelta(days=3650))).days == ()


async def test_an_action_is_recorded_before_it_is_done_and_its_first_outcome_counts(
    world: World, admin: AdminStore
) -> None:
    user_id = await account(world)
    number = await admin.begin(Actor(user_id, "192.0.2.1"), "repair", user_id, {"thorough": True})
    [begun] = await admin.actions(user_id, None, 100)
    assert (begun.id, begun.action, begun.details, begun.outcome) == (number, "repair", {"thorough": True}, None)
    await admin.end(number, "failed", reason="letta_unavailable: …")
    await admin.end(number, "done")
    [ended] = await admin.actions(user_id, None, 100)
    assert (ended.outcome, ended.reason, ended.ended_at is not None) == ("failed", "letta_unavailable: …", True)


async def test_an_action_that_makes_a_user_is_found_by_that_user(world: World, admin: AdminStore) -> None:
    user_id = await account(world)
    number = await admin.begin(COMMAND, "create_user", None, {})
    await admin.end(number, "done", user_id=user_id)
    [action] = await admin.actions(user_id, None, 100)
    assert (action.id, action.user_id) == (number, user_id)


async def test_an_action_has_the_addresses_of_both_until_they_are_deleted(world: World, admin: AdminStore) -> None:
    ann, ben = await account(world), await account(world)
    await admin.begin(Actor(ann, "192.0.2.1"), "repair", ben, {})
    found = [await world.accounts.get(user_id) for user_id in (ann, ben)]
    [action] = await admin.actions(ben, None, 10)
    assert [action.actor_email, action.user_email] == [one and one.email for one in found]
    await world.delete_user(ben)
    [action] = await admin.actions(ben, None, 10)
    assert (action.actor_email, action.user_email) == (found[0] and found[0].email, None)


async def test_actions_are_read_in_pages_and_outlive_their_users(world: World, admin: AdminStore) -> None:
    user_id = await account(world)
    numbers = [await admin.begin(COMMAND, "repair", user_id, {}) for _ in range(3)]
    await world.delete_user(user_id)
    assert [one.id for one in await admin.actions(user_id, None, 2)] == numbers[:0:-1]
    assert [one.id for one in await admin.actions(user_id, numbers[1], 2)] == numbers[:1]
    assert [one.id for one in await admin.actions(None, numbers[2] + 1, 3)] == numbers[::-1]


@pytest.mark.parametrize("world", ["supabase"], indirect=True)
@pytest.mark.parametrize("table", ["admin_actions", "admin_outcomes"])
@pytest.mark.parametrize("role", ["service_role", "owner"])
async def test_no_role_changes_the_record(world: SupabaseWorld, table: str, role: str) -> None:
    number = await world.admin.begin(COMMAND, "repair", None, {})
    await world.admin.end(number, "done")
    for statement in (
        f"update public.{table} set at = now()",
        f"delete from public.{table}",
        f"truncate public.{table} cascade",
    ):
        async with world.database.transaction(force_rollback=True):
            if role == "service_role":
                await world.database.execute("set local role service_role")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await world.database.execute(statement)
