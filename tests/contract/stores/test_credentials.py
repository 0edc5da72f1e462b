"""API keys and sign-ins: which there are, and which have ended."""

import asyncio
import secrets
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from server.ports import ApiKey, Credential, NewApiKey, Principal, SignInDevice
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from tests.contract.stores.worlds import World

HASH = "ab" * 32


def new_key(user_id: str, name: str = "script", expires_at: datetime | None = None) -> NewApiKey:
    prefix = f"chat_{secrets.token_hex(6)}"
    return NewApiKey(user_id, name, prefix, HASH, frozenset({"read", "chat"}), expires_at)


async def user_with_key(world: World, expires_at: datetime | None = None) -> tuple[str, ApiKey]:
    user_id = await world.sign_up()
    await world.accounts.ensure(user_id, "ann@example.com", None)
    return user_id, await world.credentials.create_key(new_key(user_id, expires_at=expires_at), 10)


async def keys_of(world: World, user_id: str) -> list[ApiKey]:
    """The user's keys, as the user reads them with an API key."""
    return await world.reads.api_keys(Principal(user_id, "", None, datetime.now(UTC) + timedelta(hours=1)))


async def test_a_stored_key_is_found_by_its_prefix_with_what_verifies_it(world: World) -> None:
    user_id, key = await user_with_key(world)

    found = await world.credentials.find_key(key.prefix)

    assert found is not None
    assert (found.key, found.user_id, found.secret_hash) == (key, user_id, HASH)
    assert found.email.endswith("@example.com")
    assert (key.name, sorted(key.scopes), key.expires_at, key.last_used_at) == ("script", ["chat", "read"], None, None)
    assert await world.credentials.find_key(f"chat_{secrets.token_hex(6)}") is None


async def test_keys_are_listed_the_newest_first_with_their_last_use(world: World) -> None:
    user_id, first = await user_with_key(world)
    second = await world.credentials.create_key(new_key(user_id, "other"), 10)
    await user_with_key(world)

    await world.credentials.record_key_use(first.id)

    listed = await keys_of(world, user_id)
    assert [key.id for key in listed] == [second.id, first.id]
    assert listed[0] == second
    assert listed[1].last_used_at is not None


async def test_a_user_has_at_most_ten_keys_even_if_many_are_made_at_once(world: World) -> None:
    user_id = await world.sign_up()

    made = await asyncio.gather(
        *(world.credentials.create_key(new_key(user_id), 10) for _ in range(14)), return_exceptions=True
    )

    refusals = [answer.code for answer in made if isinstance(answer, PlatformError)]
    assert refusals == ["too_many_keys"] * 4
    assert len(await keys_of(world, user_id)) == 10


async def test_an_expired_key_is_not_found_and_makes_room_for_another(world: World) -> None:
    user_id, _ = await user_with_key(world)
    past = datetime.now(UTC) - timedelta(minutes=1)
    expired = await world.credentials.create_key(new_key(user_id, expires_at=past), 10)
    assert await world.credentials.find_key(expired.prefix) is None
    assert len(await keys_of(world, user_id)) == 2

    await world.credentials.create_key(new_key(user_id), 2)

    assert expired.id not in {key.id for key in await keys_of(world, user_id)}


async def test_a_key_is_revoked_by_its_user_only(world: World) -> None:
    user_id, key = await user_with_key(world)
    other, _ = await user_with_key(world)

    assert not await world.credentials.revoke_key(other, key.id)
    assert await world.credentials.find_key(key.prefix) is not None
    assert await world.credentials.revoke_key(user_id, key.id)
    assert not await world.credentials.revoke_key(user_id, key.id)
    assert await world.credentials.find_key(key.prefix) is None


@pytest.mark.parametrize("status", [AgentStatus.BLOCKED, AgentStatus.DELETING])
async def test_a_closed_account_gets_no_key(world: World, status: AgentStatus) -> None:
    user_id = await world.sign_up()
    await world.set_status(user_id, status)
    with pytest.raises(PlatformError, match="account_blocked"):
        await world.credentials.create_key(new_key(user_id), 10)


async def test_a_deleted_user_gets_no_key(world: World) -> None:
    with pytest.raises(PlatformError, match="unauthorized"):
        await world.credentials.create_key(new_key(str(uuid.uuid4())), 10)


async def test_a_key_of_a_banned_or_deleted_user_is_not_found(world: World) -> None:
    for end in (world.ban, world.delete_user):
        user_id, key = await user_with_key(world)
        await end(user_id)
        assert await world.credentials.find_key(key.prefix) is None


async def test_a_key_says_whether_its_user_is_anonymous(world: World) -> None:
    user_id, key = await user_with_key(world)
    for expected in (False, True):
        found = await world.credentials.find_key(key.prefix)
        assert found is not None
        assert found.is_anonymous is expected
        await world.make_anonymous(user_id)


async def test_valid_credentials_have_not_ended(world: World) -> None:
    user_id, key = await user_with_key(world, datetime.now(UTC) + timedelta(hours=1))
    credentials = [
        Credential(user_id),
        Credential(user_id, session_id=await world.sign_in(user_id)),
        Credential(user_id, key_id=key.id),
    ]
    assert await world.credentials.ended(credentials) == set()
    assert await world.credentials.ended([]) == set()


async def test_of_many_credentials_those_that_have_ended_are_named(world: World) -> None:
    user_id, revoked = await user_with_key(world)
    other, others_key = await user_with_key(world)
    expired = await world.credentials.create_key(
        new_key(user_id, expires_at=datetime.now(UTC) - timedelta(seconds=1)), 10
    )
    signed_out, kept, others = [await world.sign_in(owner) for owner in (user_id, user_id, other)]
    assert await world.credentials.end_sign_in(user_id, signed_out)
    assert await world.credentials.revoke_key(user_id, revoked.id)
    valid = {Credential(user_id, kept), Credential(other, others), Credential(other, key_id=others_key.id)}
    ended = {
        Credential(user_id, signed_out),
        Credential(user_id, str(uuid.uuid4())),
        Credential(user_id, others),
        Credential(user_id, key_id=revoked.id),
        Credential(user_id, key_id=expired.id),
        Credential(user_id, key_id=others_key.id),
        Credential(str(uuid.uuid4())),
    }

    assert await world.credentials.ended([*valid, *ended] * 80) == ended


@pytest.mark.parametrize("deed", ["ban", "delete_user"])
async def test_every_credential_of_a_banned_or_deleted_user_has_ended(world: World, deed: str) -> None:
    user_id, key = await user_with_key(world)
    mine = [Credential(user_id), Credential(user_id, await world.sign_in(user_id)), Credential(user_id, key_id=key.id)]
    end: Callable[[str], Awaitable[None]] = getattr(world, deed)

    await end(user_id)

    assert await world.credentials.ended(mine) == set(mine)


async def test_sign_ins_are_listed_and_ended_by_their_user_only(world: World) -> None:
    ann, ben = await world.sign_up(), await world.sign_up()
    first, second = await world.sign_in(ann), await world.sign_in(ann)
    assert await world.credentials.sign_ins(ben) == []
    assert {found.id for found in await world.credentials.sign_ins(ann)} == {first, second}

    assert not await world.credentials.end_sign_in(ben, first)
    assert await world.credentials.end_sign_in(ann, first)
    assert not await world.credentials.end_sign_in(ann, first)

    [left] = await world.credentials.sign_ins(ann)
    assert left.id == second
    assert left.created_at <= left.last_seen_at


async def test_a_sign_in_has_the_device_that_was_recorded_last_until_it_ends(world: World) -> None:
    ann, ben = await world.sign_up(), await world.sign_up()
    for user_id in (ann, ben):
        await world.accounts.ensure(user_id, "", None)
    known, unknown = await world.sign_in(ann), await world.sign_in(ann)
    for name in ("Old/1", "Браузер"):
        await world.accounts.record_sign_in(ann, SignInDevice(known, name, "2001:db8::1"), None)
    for owner, session_id in ((ben, known), (ann, str(uuid.uuid4())), (str(uuid.uuid4()), unknown)):
        await world.accounts.record_sign_in(owner, SignInDevice(session_id, "Ben's", "192.0.2.66"), None)

    listed = {one.id: (one.user_agent, one.address) for one in await world.credentials.sign_ins(ann)}
    assert listed == {known: ("Браузер", "2001:db8::1"), unknown: (None, None)}

    assert await world.devices() >= {known}
    assert await world.credentials.end_sign_in(ann, known)
    assert known not in await world.devices()


async def test_devices_of_a_deleted_user_are_gone(world: World) -> None:
    user_id = await world.sign_up()
    await world.accounts.ensure(user_id, "", None)
    session_id = await world.sign_in(user_id)
    await world.accounts.record_sign_in(user_id, SignInDevice(session_id, None, None), None)
    assert session_id in await world.devices()
    await world.delete_user(user_id)
    assert session_id not in await world.devices()
