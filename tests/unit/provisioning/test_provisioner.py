"""Waiting for an agent: one run per user in a process, claims between processes, retries, the end at shutdown."""

import asyncio

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.provisioning.claims import CLAIM_SECONDS
from server.provisioning.provisioner import CACHED_SECONDS, CONCURRENT_RUNS
from tests.unit.provisioning.world import ANN, OTHER_TEMPLATE, Killed, World, unavailable
from tests.virtual_time import virtual_time

EMAIL = "ann@example.com"


class Gate:
    """Holds all calls of one operation until it is opened; `reached` is set when `crowd` of them wait."""

    def __init__(self, world: World, operation: str, crowd: int = 1) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        self.waiting = 0
        self._operation, self._crowd = operation, crowd
        world.intercept(self._before)

    async def _before(self, operation: str) -> None:
        if operation == self._operation:
            self.waiting += 1
            if self.waiting >= self._crowd:
                self.reached.set()
            await self.opened.wait()


async def test_all_callers_for_one_user_share_one_run(world: World) -> None:
    process = world.process()
    handles = await asyncio.gather(*(process.ready(ANN, EMAIL) for _ in range(20)))
    assert len(set(handles)) == 1
    assert world.calls.count("claim_provisioning") == 1
    world.assert_exactly_one_of_each()


async def test_instances_that_run_at_the_same_time_create_one_agent(world: World) -> None:
    handles = await asyncio.gather(*(world.process().ready(ANN, EMAIL) for _ in range(4)))
    assert len(set(handles)) == 1
    world.assert_exactly_one_of_each()
    assert len(world.billing.registered) == 1


async def test_a_cached_agent_costs_no_call(world: World) -> None:
    process = world.process()
    handle = await process.ready(ANN, EMAIL)
    world.calls.clear()
    assert await process.ready(ANN, EMAIL) == handle
    assert world.calls == []


async def test_a_restarted_server_reads_the_account_and_calls_no_service(world: World) -> None:
    handle = await world.process().ready(ANN, EMAIL)
    world.calls.clear()
    assert await world.process().ready(ANN) == handle
    assert world.calls == ["get"]


async def test_an_evicted_agent_is_read_again(world: World) -> None:
    process = world.process()
    await process.ready(ANN, EMAIL)
    process.evict(ANN)
    world.calls.clear()
    await process.ready(ANN)
    assert world.calls == ["get"]


async def test_an_agent_replaced_by_an_operator_is_used_when_the_cached_one_expires(world: World) -> None:
    server, operator = world.process(), world.process()
    first = await server.ready(ANN, EMAIL)
    world.directory.members[first.member_id].agents.clear()
    second = await operator.attempt(ANN, thorough=True)
    await world.sleep(CACHED_SECONDS)
    assert await server.ready(ANN) == second != first


async def test_a_thorough_run_waits_for_an_active_ordinary_one(world: World) -> None:
    process = world.process()
    gate = Gate(world, "ensure_conversation")
    ordinary = asyncio.create_task(process.ready(ANN, EMAIL))
    await gate.reached.wait()
    thorough = asyncio.create_task(process.attempt(ANN, thorough=True))
    gate.opened.set()
    assert await ordinary == await thorough
    assert world.calls.count("ensure_agent") == 2


async def test_the_run_of_a_crashed_instance_is_taken_over_when_its_claim_expires(world: World) -> None:
    world.kill(8, when="after")
    dead = world.process()
    with pytest.raises(Killed):
        await dead.ready(ANN, EMAIL)
    world.intercept()
    died = world.now
    await world.process().ready(ANN, timeout=600)
    world.assert_exactly_one_of_each()
    assert (world.now - died).total_seconds() >= CLAIM_SECONDS


async def test_an_instance_whose_claim_was_taken_over_changes_nothing(world: World) -> None:
    slow = world.process()
    gate = Gate(world, "ensure_agent")
    waiting = asyncio.create_task(slow.ready(ANN, EMAIL))
    await gate.reached.wait()
    await world.sleep(61)
    world.intercept()
    await world.process().ready(ANN)
    taken = world.account()
    gate.opened.set()
    assert await waiting == taken.handle
    assert world.account() == taken
    world.assert_exactly_one_of_each()


async def test_a_caller_times_out_while_the_run_continues(world: World) -> None:
    process = world.process()
    gate = Gate(world, "ensure_agent")
    with pytest.raises(PlatformError) as raised:
        await process.ready(ANN, EMAIL, timeout=0.01)
    assert raised.value.code is ErrorCode.AGENT_UNAVAILABLE
    assert raised.value.retryable
    assert raised.value.retry_after
    gate.opened.set()
    await process.ready(ANN)
    world.assert_exactly_one_of_each()
    assert world.calls.count("ensure_agent") == 1


@virtual_time
async def test_a_timeout_reports_the_last_failure() -> None:
    world = World()
    process = world.process(sleep=asyncio.sleep)
    world.fail("ensure_key", lambda: PlatformError(ErrorCode.LITELLM_UNAVAILABLE, "The model gateway is unavailable."))
    with pytest.raises(PlatformError) as raised:
        await process.ready(ANN, EMAIL, timeout=60)
    assert raised.value.code is ErrorCode.AGENT_UNAVAILABLE
    assert raised.value.message == "The model gateway is unavailable. Setting up your agent goes on by itself."
    await process.aclose()


async def test_a_caller_who_leaves_does_not_stop_the_run(world: World) -> None:
    process = world.process()
    gate = Gate(world, "ensure_agent")
    waiting = asyncio.create_task(process.ready(ANN, EMAIL))
    await gate.reached.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.opened.set()
    await process.ready(ANN)
    assert world.calls.count("ensure_agent") == 1


async def test_an_outage_shorter_than_the_timeout_is_hidden_by_retries(world: World) -> None:
    failures = 3

    async def before(operation: str) -> None:
        nonlocal failures
        if operation == "ensure_key" and failures:
            failures -= 1
            raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)

    world.intercept(before)
    await world.process().ready(ANN, EMAIL)
    world.assert_exactly_one_of_each()


async def test_a_permanent_failure_is_not_retried(world: World) -> None:
    world.fail("ensure_agent", lambda: PlatformError(ErrorCode.INTERNAL_ERROR, "No.", retryable=False))
    with pytest.raises(PlatformError) as raised:
        await world.process().ready(ANN, EMAIL)
    assert raised.value.code is ErrorCode.AGENT_UNAVAILABLE
    assert world.calls.count("ensure_agent") == 1


async def test_an_unknown_user_is_not_found(world: World) -> None:
    with pytest.raises(PlatformError) as raised:
        await world.process().ready(ANN)
    assert raised.value.code is ErrorCode.NOT_FOUND


async def test_ensuring_an_account_starts_a_run_in_the_background(world: World) -> None:
    process = world.process()
    account = await process.ensure_account(ANN, EMAIL, "Ann")
    assert (account.agent_status, account.name) == (AgentStatus.PROVISIONING, "Ann")
    await process.ready(ANN)
    assert world.calls.count("claim_provisioning") == 1
    assert [(event.user_id, event.status) for event in world.events] == [(ANN, AgentStatus.ACTIVE)]


async def test_signing_in_works_while_litellm_is_unavailable(world: World) -> None:
    process = world.process()
    world.fail("ensure_customer", unavailable(ErrorCode.LITELLM_UNAVAILABLE))
    assert (await process.ensure_account(ANN, EMAIL)).agent_status is AgentStatus.PROVISIONING
    with pytest.raises(PlatformError):
        await process.attempt(ANN)
    assert (await process.ensure_account(ANN, EMAIL)).status_reason is not None
    await process.aclose()


async def test_a_ready_account_is_not_provisioned_again_at_sign_in(world: World) -> None:
    await world.process().ready(ANN, EMAIL)
    world.calls.clear()
    await world.process().ensure_account(ANN, EMAIL)
    assert world.calls == ["ensure"]


async def test_after_a_sign_in_the_agent_is_not_read_again(world: World) -> None:
    handle = await world.process().ready(ANN, EMAIL)
    process = world.process()
    await process.ensure_account(ANN, EMAIL)
    world.calls.clear()
    assert await process.ready(ANN) == handle
    assert world.calls == []


async def test_a_prefetched_agent_is_read_once_and_by_no_one_else(world: World) -> None:
    handle = await world.process().ready(ANN, EMAIL)
    process = world.process()
    world.calls.clear()
    process.prefetch(ANN)
    process.prefetch(ANN)
    assert await process.ready(ANN) == handle
    process.prefetch(ANN)
    assert world.calls == ["get"]


async def test_a_prefetch_that_fails_or_comes_too_late_raises_nothing(world: World) -> None:
    process = world.process()
    process.prefetch("nobody")
    with pytest.raises(PlatformError, match="does not exist"):
        await process.ready("nobody")
    await process.aclose()
    process.prefetch(ANN)


async def test_another_configuration_is_applied_at_sign_in(world: World) -> None:
    await world.process().ready(ANN, EMAIL)
    world.template = OTHER_TEMPLATE
    process = world.process()
    await process.ensure_account(ANN, EMAIL)
    await process.ready(ANN)
    world.assert_exactly_one_of_each()


async def test_concurrent_runs_are_limited(world: World) -> None:
    users = [f"user-{number}" for number in range(CONCURRENT_RUNS + 5)]
    world.database.users |= {user: f"{user}@example.com" for user in users}
    process = world.process()
    gate = Gate(world, "ensure_agent", crowd=CONCURRENT_RUNS)
    waiting = [asyncio.create_task(process.ready(user, f"{user}@example.com")) for user in users]
    await gate.reached.wait()
    for _ in range(200):
        await asyncio.sleep(0)
    assert gate.waiting == CONCURRENT_RUNS
    gate.opened.set()
    assert len(set(await asyncio.gather(*waiting))) == len(users)


async def test_shutdown_stops_the_runs_and_releases_their_claims(world: World) -> None:
    process = world.process()
    gate = Gate(world, "ensure_agent")
    waiting = asyncio.create_task(process.ready(ANN, EMAIL))
    await gate.reached.wait()
    await process.aclose()
    assert world.database.profiles[ANN].claimed_until is None
    for caller in (waiting, process.ready(ANN)):
        with pytest.raises(PlatformError) as raised:
            await caller
        assert raised.value.code is ErrorCode.DRAINING
    world.intercept()
    stopped = world.now
    await world.process().ready(ANN)
    assert world.now == stopped
    world.assert_exactly_one_of_each()
