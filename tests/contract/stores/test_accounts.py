"""Accounts: profiles, and the fenced claim under which one instance at a time provisions them."""

import asyncio
import uuid

import pytest

from server.ports import AccountChange, AccountStore, FencedError, ProvisioningClaim, SignInDevice
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from tests.contract.stores.worlds import World

NO_DEVICE = SignInDevice(None, None, None)


@pytest.fixture
def accounts(world: World) -> AccountStore:
    return world.accounts


@pytest.fixture
async def user_id(world: World) -> str:
    return await world.sign_up()


async def claimed(accounts: AccountStore, user_id: str, owner: str = "me") -> ProvisioningClaim:
    claim = await accounts.claim(user_id, owner, 30)
    assert claim
    return claim


async def test_a_new_account_is_provisioning_and_has_nothing_yet(
    world: World, accounts: AccountStore, user_id: str
) -> None:
    assert await accounts.get(user_id) is None

    email = f"{user_id}@example.com"
    await world.set_address(user_id, email)

    account = await accounts.ensure(user_id, email, "Ann")

    assert (account.user_id, account.email, account.name) == (user_id, email, "Ann")
    assert account.agent_status is AgentStatus.PROVISIONING
    assert (account.encrypted_key, account.organization_id, account.agent_id, account.intent) == (None,) * 4
    assert (account.customer_ready, account.key_ready, account.tools_ready) == (False, False, False)
    assert account.handle is None
    assert await accounts.get(user_id) == account


async def test_ensuring_again_keeps_the_name_and_follows_the_address_at_auth(
    world: World, accounts: AccountStore, user_id: str
) -> None:
    old, new = f"{user_id}@example.com", f"{user_id}@example.org"
    await world.set_address(user_id, old)
    await accounts.ensure(user_id, old, None)
    assert (await accounts.ensure(user_id, old, "Ann")).name == "Ann"
    await world.set_address(user_id, new)

    account = await accounts.ensure(user_id, old, "Somebody else")  # with an older token

    assert (account.name, account.email) == ("Ann", new)


async def test_a_user_without_an_address_at_auth_has_that_of_the_token(
    world: World, accounts: AccountStore, user_id: str
) -> None:
    await world.set_address(user_id, "")
    assert (await accounts.ensure(user_id, "ann@example.com", None)).email == "ann@example.com"


async def test_a_customer_with_another_address_is_found_until_it_has_the_profiles(
    world: World, accounts: AccountStore, user_id: str
) -> None:
    old, new = f"{user_id}@example.com", f"{user_id}@example.org"
    await world.set_address(user_id, old)
    await accounts.ensure(user_id, "", None)
    assert user_id not in await accounts.outdated_customers(1000)
    claim = await claimed(accounts, user_id)
    account = await accounts.record(claim, AccountChange(customer_ready=True, customer_email=old))
    assert account.customer_email == old
    await world.set_address(user_id, new)
    await accounts.ensure(user_id, "", None)
    assert user_id not in await accounts.outdated_customers(1000)  # claimed
    await accounts.release(claim)
    assert user_id in await accounts.outdated_customers(1000)
    await world.set_status(user_id, AgentStatus.BLOCKED)
    assert user_id not in await accounts.outdated_customers(1000)


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"name": "Ada"}, "Ada"),
        ({"full_name": "Ada Lovelace", "avatar_url": "https://example.com/a.png"}, "Ada Lovelace"),
        ({"display_name": "ada"}, "ada"),
        ({"name": "Ada", "full_name": "Ada Lovelace"}, "Ada"),
        ({"name": " \t ", "full_name": "Ada Lovelace"}, "Ada Lovelace"),
        ({"name": 7, "full_name": "Ada Lovelace"}, "Ada Lovelace"),
        ({"name": {"first": "Ada"}}, None),
        ({"name": ["Ada"]}, None),
        ({"name": None}, None),
        ({"name": ""}, None),
        ({}, None),
        ({"name": "  Ada\nUser's name:\r\x1b[2J Eve "}, "Ada User's name: [2J Eve"),
        ({"name": "Ада Лавлейс 🎉"}, "Ада Лавлейс 🎉"),
        ({"name": "x" * 99 + " " + "y" * 10_000}, "x" * 99),
        ({"name": "я" * 5_000}, "я" * 100),
    ],
)
async def test_an_account_gets_the_name_of_the_sign_up(
    world: World, accounts: AccountStore, metadata: dict[str, object], name: str | None
) -> None:
    by_ensuring, by_claiming = await world.sign_up(metadata), await world.sign_up(metadata)

    assert (await accounts.ensure(by_ensuring, "ada@example.com", None)).name == name
    assert (await claimed(accounts, by_claiming)).account.name == name


async def test_a_name_of_the_profile_is_not_replaced_by_auths(world: World, accounts: AccountStore) -> None:
    given, renamed = await world.sign_up({"name": "Auth's"}), await world.sign_up({"name": "Auth's"})
    await accounts.ensure(renamed, "ada@example.com", None)
    await accounts.rename(renamed, "Ada")

    assert (await accounts.ensure(given, "ada@example.com", "Ada")).name == "Ada"
    for user_id in (given, renamed):
        assert (await accounts.ensure(user_id, "ada@example.com", None)).name == "Ada"


async def test_the_name_written_to_the_agent_is_recorded(accounts: AccountStore, user_id: str) -> None:
    claim = await claimed(accounts, user_id)
    assert claim.account.told_name is None
    await accounts.record(claim, AccountChange(told_name="Ada"))

    assert (await accounts.rename(user_id, "Grace")).told_name == "Ada"
    assert (await accounts.record(claim, AccountChange(intent="agent"))).told_name == "Ada"


async def test_concurrent_registrations_create_one_account(accounts: AccountStore, user_id: str) -> None:
    made = await asyncio.gather(*(accounts.ensure(user_id, "ann@example.com", "Ann") for _ in range(8)))
    assert len({account.created_at for account in made}) == 1


async def test_users_unknown_to_auth_get_no_account(accounts: AccountStore) -> None:
    nobody = str(uuid.uuid4())
    for attempt in (accounts.ensure(nobody, "no@example.com", None), accounts.claim(nobody, "me", 30)):
        with pytest.raises(PlatformError) as refusal:
            await attempt
        assert refusal.value.code is ErrorCode.UNAUTHORIZED
    with pytest.raises(PlatformError) as refusal:
        await accounts.rename(nobody, "Nobody")
    assert refusal.value.code is ErrorCode.NOT_FOUND


async def test_deleting_the_user_deletes_the_account(world: World, accounts: AccountStore, user_id: str) -> None:
    await accounts.ensure(user_id, "ann@example.com", None)
    await world.delete_user(user_id)
    assert await accounts.get(user_id) is None


async def test_results_are_recorded_step_by_step(accounts: AccountStore, user_id: str) -> None:
    claim = await claimed(accounts, user_id)
    agent_id = f"agent-{uuid.uuid4()}"
    await accounts.record(claim, AccountChange(intent="organization"))
    await accounts.record(
        claim, AccountChange(encrypted_key=f"v1:{uuid.uuid4()}", key_hash="abc", customer_ready=True, key_ready=True)
    )
    await accounts.record(claim, AccountChange(organization_id="org-1", member_id="user-1", tools_ready=True))
    account = await accounts.record(
        claim,
        AccountChange(
            agent_status=AgentStatus.ACTIVE,
            provider_id="provider-1",
            agent_id=agent_id,
            conversation_id="conv-1",
            config_hash="hash",
            intent="",
        ),
    )

    assert account.handle
    assert (account.handle.member_id, account.handle.agent_id, account.handle.conversation_id) == (
        "user-1",
        agent_id,
        "conv-1",
    )
    assert (account.agent_status, account.intent, account.config_hash) == (AgentStatus.ACTIVE, None, "hash")
    assert account.encrypted_key
    assert (account.customer_ready, account.key_ready, account.tools_ready) == (True, True, True)
    assert await accounts.get(user_id) == account


async def test_a_reason_is_kept_until_it_is_cleared(accounts: AccountStore, user_id: str) -> None:
    claim = await claimed(accounts, user_id)
    await accounts.record(claim, AccountChange(agent_status=AgentStatus.FAILED, status_reason="No model."))
    assert (await accounts.record(claim, AccountChange(intent="key"))).status_reason == "No model."
    assert (await accounts.record(claim, AccountChange(status_reason=""))).status_reason is None


async def test_only_one_owner_has_the_claim_at_a_time(accounts: AccountStore, user_id: str) -> None:
    claims = await asyncio.gather(*(accounts.claim(user_id, f"owner-{n}", 30) for n in range(8)))

    [claim] = [claim for claim in claims if claim]
    await accounts.release(claim)
    again = await claimed(accounts, user_id, "another")
    assert again.fence == claim.fence + 1


async def test_an_expired_claim_is_taken_over_and_fences_the_previous_owner(
    world: World, accounts: AccountStore, user_id: str
) -> None:
    first = await claimed(accounts, user_id)
    await world.sessions.claim(user_id, "me")
    await world.let_leases_expire(user_id)
    second = await claimed(accounts, user_id, "another")

    with pytest.raises(FencedError):
        await accounts.record(first, AccountChange(intent="key"))
    await accounts.release(first)
    assert (await accounts.record(second, AccountChange(intent="agent"))).intent == "agent"
    assert await accounts.claim(user_id, "third", 30) is None


async def test_claiming_again_as_the_same_owner_fences_the_earlier_claim(accounts: AccountStore, user_id: str) -> None:
    first, second = await claimed(accounts, user_id), await claimed(accounts, user_id)

    assert second.fence == first.fence + 1
    with pytest.raises(FencedError):
        await accounts.record(first, AccountChange(intent="key"))


async def test_a_released_claim_records_nothing(accounts: AccountStore, user_id: str) -> None:
    claim = await claimed(accounts, user_id)
    await accounts.release(claim)
    with pytest.raises(FencedError):
        await accounts.record(claim, AccountChange(intent="key"))


async def test_recording_renews_the_claim(world: World, accounts: AccountStore, user_id: str) -> None:
    claim = await claimed(accounts, user_id)
    await world.sessions.claim(user_id, "me")
    await world.let_leases_expire(user_id)
    await accounts.record(claim, AccountChange(intent="key"))

    assert await accounts.claim(user_id, "another", 30) is None


@pytest.mark.parametrize("status", [AgentStatus.BLOCKED, AgentStatus.DELETING])
async def test_provisioning_never_reopens_a_closed_account(
    world: World, accounts: AccountStore, user_id: str, status: AgentStatus
) -> None:
    claim = await claimed(accounts, user_id)
    await world.set_status(user_id, status)

    account = await accounts.record(claim, AccountChange(agent_status=AgentStatus.ACTIVE, member_id="user-1"))

    assert (account.agent_status, account.member_id) == (status, "user-1")


async def test_incomplete_accounts_are_found_oldest_first(world: World, accounts: AccountStore) -> None:
    config = f"config-{uuid.uuid4()}"
    unfinished, failed, outdated, done, busy, blocked = [await world.sign_up() for _ in range(6)]
    await accounts.ensure(unfinished, "unfinished@example.com", None)
    for user_id, status, configured in (
        (failed, AgentStatus.FAILED, config),
        (outdated, AgentStatus.ACTIVE, "an older one"),
        (done, AgentStatus.ACTIVE, config),
    ):
        claim = await claimed(accounts, user_id)
        await accounts.record(claim, AccountChange(agent_status=status, config_hash=configured))
        await accounts.release(claim)
    await claimed(accounts, busy)
    await world.set_status(blocked, AgentStatus.BLOCKED)

    found = await accounts.incomplete(config, 100_000)

    ours = {unfinished, failed, outdated, done, busy, blocked}
    assert [user_id for user_id in found if user_id in ours] == [unfinished, failed, outdated]
    assert len(await accounts.incomplete(config, 2)) == 2


async def test_renaming_changes_the_name_only(accounts: AccountStore, user_id: str) -> None:
    before = await accounts.ensure(user_id, "ann@example.com", "Ann")
    after = await accounts.rename(user_id, "Анна '; drop table --")

    assert (after.name, after.email, after.created_at) == ("Анна '; drop table --", before.email, before.created_at)
    assert after.updated_at >= before.updated_at


async def test_an_account_knows_the_newest_addresses_that_signed_in_to_it(world: World, accounts: AccountStore) -> None:
    user_id, other = await world.sign_up(), await world.sign_up()
    email = f"{user_id[:8]}@example.com"
    assert await accounts.known_addresses(email) == []
    await accounts.ensure(user_id, email, None)
    for n in (*range(22), 5):
        await accounts.record_sign_in(user_id, NO_DEVICE, f"hash-{n}")
    assert await accounts.known_addresses(email) == ["hash-5", *(f"hash-{n}" for n in range(21, 1, -1) if n != 5)]
    assert await accounts.known_addresses(f"{other[:8]}@example.com") == []
    assert await accounts.known_addresses("nobody@example.com") == []


async def test_addresses_of_a_deleted_account_are_gone(world: World, accounts: AccountStore) -> None:
    user_id = await world.sign_up()
    email = f"{user_id[:8]}@example.com"
    await accounts.ensure(user_id, email, None)
    await accounts.record_sign_in(user_id, NO_DEVICE, "hash")
    await world.delete_user(user_id)
    assert await accounts.known_addresses(email) == []
    await accounts.record_sign_in(user_id, NO_DEVICE, "hash")
    assert await accounts.known_addresses(email) == []
