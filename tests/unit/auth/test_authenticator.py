"""Authentication, and the cache of accounts."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from server.auth.authenticator import Authenticator, authorize
from server.ports import Access, Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.accounts import FakeAccountStore
from tests.unit.auth.door import Door


async def test_a_checked_account_is_cached_with_a_ttl() -> None:
    door = Door()
    token = door.token()
    for _ in range(5):
        await door.authenticator.token(token, "read")
    assert door.looks == 1
    door.seconds += 16
    await door.authenticator.token(token, "read")
    assert door.looks == 2


async def test_concurrent_requests_of_a_user_share_one_check() -> None:
    door = Door()
    token, other = door.token(), door.token()
    await asyncio.gather(*(door.authenticator.token(one, "read") for one in (token, other) * 30))
    assert door.looks == 2
    door.seconds += 16
    await asyncio.gather(*(door.authenticator.token(token, "read") for _ in range(30)))
    assert door.looks == 3


async def test_a_failed_check_fails_for_all_who_share_it_and_is_repeated() -> None:
    door = Door(unavailable=True)
    token = door.token()
    asked = [door.authenticator.token(token, "read") for _ in range(5)]
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert {error.code for error in errors if isinstance(error, PlatformError)} == {ErrorCode.SUPABASE_UNAVAILABLE}
    assert (len(errors), door.looks) == (5, 1)
    door.unavailable = False
    await door.authenticator.token(token, "read")
    assert door.looks == 2


async def test_a_cancelled_request_does_not_cancel_a_shared_check() -> None:
    door = Door()
    token = door.token()
    leaving, staying = (asyncio.create_task(door.authenticator.token(token, "read")) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).user_id
    assert door.looks == 1


async def test_a_request_that_waits_for_an_account_at_shutdown_is_refused_as_draining() -> None:
    door = Door()
    coming = asyncio.create_task(door.authenticator.token(door.token(), "read"))
    await door.asked.wait()
    await door.authenticator.aclose()
    with pytest.raises(PlatformError) as refused:
        await coming
    assert refused.value.code is ErrorCode.DRAINING


async def test_the_token_itself_is_verified_every_time() -> None:
    door = Door()
    token = door.token()
    await door.authenticator.token(token, "read")
    await door.authenticator.token(token, "read")
    assert door.identity.verified == 2


async def test_a_malformed_token_does_not_reach_the_verifier() -> None:
    door = Door()
    for token in ("é", "\udcff"):
        with pytest.raises(PlatformError, match="unauthorized"):
            await door.authenticator.header(f"Bearer {token}", "read")
    assert door.identity.verified == 0


async def test_a_blocked_user_is_refused_from_the_next_check_on() -> None:
    door = Door()
    user_id = door.database.sign_up()
    token = door.token(user_id)
    await door.authenticator.token(token, "read")
    door.block(user_id)
    door.seconds += 16
    for _ in range(2):
        with pytest.raises(PlatformError, match="account_blocked"):
            await door.authenticator.token(token, "read")


async def test_while_supabase_is_unavailable_cached_users_are_admitted_and_new_ones_refused() -> None:
    door = Door()
    known, new = door.token(), door.token()
    await door.authenticator.token(known, "read")
    door.unavailable = True
    door.seconds += 3600
    assert await door.authenticator.token(known, "read")
    with pytest.raises(PlatformError, match="supabase_unavailable"):
        await door.authenticator.token(new, "read")


async def test_the_cache_of_accounts_is_bounded() -> None:
    door = Door(cached=2)
    first = door.token()
    for token in (first, door.token(), door.token()):
        await door.authenticator.token(token, "read")
    await door.authenticator.token(first, "read")
    assert door.looks == 4


async def test_a_ticket_authenticates_its_user_without_a_token() -> None:
    door = Door()
    user_id = door.database.sign_up("ann@example.com")
    principal = await door.authenticator.token(door.token(user_id), "read")
    ticket = door.tickets.issue(principal, "chat")
    admitted = await door.authenticator.ticket(ticket.text, "chat", "read")
    assert (admitted.user_id, admitted.email) == (user_id, "ann@example.com")
    assert admitted.expires_at == principal.expires_at
    assert admitted.access_token is None


async def test_a_ticket_of_a_blocked_or_deleted_user_is_refused() -> None:
    door = Door()
    blocked, deleted = door.database.sign_up(), door.database.sign_up()
    for user_id, code in ((blocked, "account_blocked"), (deleted, "unauthorized")):
        principal = await door.authenticator.token(door.token(user_id), "read")
        ticket = door.tickets.issue(principal, "chat")
        if user_id == blocked:
            door.block(user_id)
        else:
            door.database.delete_user(user_id)
        with pytest.raises(PlatformError, match=code):
            await door.authenticator.ticket(ticket.text, "chat", "read")


async def test_an_expired_token_of_a_cached_user_is_refused() -> None:
    door = Door()
    user_id = door.database.sign_up()
    await door.authenticator.token(door.token(user_id), "read")
    expired = door.identity.issue(user_id, timedelta(seconds=-1)).access_token.get_secret_value()
    with pytest.raises(PlatformError, match="token_expired"):
        await door.authenticator.token(expired, "read")


@pytest.mark.parametrize("access", get_args(Access))
def test_a_credential_is_good_for_its_scopes_only(access: Access) -> None:
    reader = Principal("ann", "", None, datetime(2030, 1, 1, tzinfo=UTC), scopes=frozenset({"read"}))
    if access in ("public", "read"):
        authorize(reader, access)
        return
    with pytest.raises(PlatformError, match="forbidden"):
        authorize(reader, access)


async def test_access_is_refused_before_an_account_is_opened() -> None:
    door = Door()
    with pytest.raises(PlatformError, match="forbidden"):
        await door.authenticator.token(door.token(), "admin")
    assert door.looks == 0


@pytest.mark.parametrize(("requires_aal2", "is_anonymous"), [(True, False), (False, True)])
async def test_an_operator_needs_what_every_user_needs(requires_aal2: bool, is_anonymous: bool) -> None:
    door = Door()
    user_id = door.database.sign_up()
    door.database.admins.add(user_id)
    door.database.profile(user_id)
    token = door.token(user_id)
    assert (await door.authenticator.token(token, "admin")).user_id == user_id

    class Anonymous:
        async def verify(self, token: str) -> Principal:
            return replace(await door.identity.verify(token), is_anonymous=is_anonymous)

    strict = Authenticator(
        Anonymous(), door.tickets, FakeAccountStore(door.database), door, door.credentials, requires_aal2=requires_aal2
    )
    with pytest.raises(PlatformError, match=r"mfa_required|anonymous_not_allowed"):
        await strict.token(token, "admin")


async def test_an_operator_who_is_blocked_is_refused() -> None:
    door = Door()
    user_id = door.database.sign_up()
    door.database.admins.add(user_id)
    door.database.profile(user_id)
    door.block(user_id)
    with pytest.raises(PlatformError, match="account_blocked"):
        await door.authenticator.token(door.token(user_id), "admin")


@pytest.mark.parametrize("shown", ["key_id", "ticket_id"])
async def test_no_api_key_or_ticket_is_enough_for_an_operator(shown: str) -> None:
    door = Door()
    user_id = door.database.sign_up()
    door.database.admins.add(user_id)
    door.database.profile(user_id)

    class Presented:
        async def verify(self, token: str) -> Principal:
            return replace(await door.identity.verify(token), **{shown: "1"})  # type: ignore[arg-type]

    keyed = Authenticator(Presented(), door.tickets, FakeAccountStore(door.database), door, door.credentials)
    with pytest.raises(PlatformError, match="forbidden"):
        await keyed.token(door.token(user_id), "admin")
