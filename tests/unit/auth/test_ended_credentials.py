"""Sign-ins and API keys that end: from when on they are refused, and what their checks cost."""

import asyncio
from collections.abc import Sequence
from typing import get_args

import pytest

from server.ports import Access, Credential
from server.protocol.codes import ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from tests.fakes.credentials import FakeCredentials
from tests.fakes.database import MemoryDatabase
from tests.unit.auth.door import Door


async def test_a_sign_out_elsewhere_counts_when_the_sign_in_is_checked_again() -> None:
    door = Door()
    token = door.token()
    session_id = (await door.authenticator.token(token, "read")).session_id
    del door.database.sign_ins[session_id or ""]
    assert await door.authenticator.token(token, "read")  # cached
    door.seconds += 16
    for _ in range(2):
        with pytest.raises(PlatformError, match="unauthorized"):
            await door.authenticator.token(token, "read")


async def test_an_evicted_user_is_checked_at_once_and_keeps_other_sign_ins() -> None:
    door = Door()
    user_id = door.database.sign_up()
    token, other = door.token(user_id), door.token(user_id)
    session_id = (await door.authenticator.token(token, "read")).session_id
    assert await door.authenticator.token(other, "read")
    del door.database.sign_ins[session_id or ""]
    door.authenticator.evict(user_id)
    with pytest.raises(PlatformError, match="unauthorized"):
        await door.authenticator.token(token, "read")
    assert await door.authenticator.token(other, "read")


class SlowCredentials(FakeCredentials):
    """A check that began is answered only after `may_go_on`."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.checked, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def ended(self, credentials: Sequence[Credential]) -> set[Credential]:
        ended = await super().ended(credentials)
        self.checked.set()
        await self.may_go_on.wait()
        return ended


async def test_a_check_that_began_before_a_sign_out_does_not_outlast_it() -> None:
    database = MemoryDatabase()
    slow = SlowCredentials(database)
    door = Door(database=database, given=slow)
    user_id = database.sign_up()
    token = door.token(user_id)
    late = asyncio.create_task(door.authenticator.token(token, "read"))
    await slow.checked.wait()
    database.sign_ins.clear()
    door.authenticator.evict(user_id)
    slow.may_go_on.set()
    await late  # the user was signed in when it was checked
    with pytest.raises(PlatformError, match="unauthorized"):
        await door.authenticator.token(token, "read")


async def test_while_the_database_cannot_be_asked_nobody_is_signed_out() -> None:
    door = Door()
    known, new = door.token(), door.token()
    await door.authenticator.token(known, "read")
    door.seconds += 3600

    async def unavailable(operation: str) -> None:
        raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    door.unavailable, door.database.before = True, unavailable
    assert await door.authenticator.token(known, "read")
    with pytest.raises(PlatformError, match="supabase_unavailable"):
        await door.authenticator.token(new, "read")


@pytest.mark.parametrize("deed", ["ban", "delete"])
async def test_a_user_who_was_banned_or_deleted_at_auth_is_refused(deed: str) -> None:
    door = Door()
    user_id = door.database.sign_up()
    token = door.token(user_id)
    await door.authenticator.token(token, "read")
    if deed == "ban":
        door.database.banned.add(user_id)
    else:
        door.database.delete_user(user_id)
    door.authenticator.evict(user_id)
    with pytest.raises(PlatformError, match="unauthorized"):
        await door.authenticator.token(token, "read")


async def test_the_sign_ins_cached_for_a_user_are_limited() -> None:
    door = Door()
    user_id = door.database.sign_up()
    for _ in range(200):
        assert await door.authenticator.token(door.token(user_id), "read")
    assert len(door.authenticator._checked[user_id].sign_ins) <= 64


async def test_an_api_key_is_accepted_like_a_token_within_its_scopes() -> None:
    door = Door()
    user_id = door.database.sign_up("ann@example.com")
    key = await door.key(user_id, "read")
    principal = await door.authenticator.header(f"Bearer {key}", "read")
    assert (principal.user_id, set(principal.scopes)) == (user_id, {"read"})
    for access in get_args(Access):
        if access not in ("public", "read"):
            with pytest.raises(PlatformError, match="forbidden"):
                await door.authenticator.header(f"Bearer {key}", access)
    await door.credentials.revoke_key(user_id, principal.key_id or "")
    with pytest.raises(PlatformError, match="unauthorized"):
        await door.authenticator.header(f"Bearer {key}", "read")


async def test_an_api_key_of_a_blocked_account_is_refused() -> None:
    door = Door()
    user_id = door.database.sign_up()
    key = await door.key(user_id, "read")
    door.block(user_id)
    with pytest.raises(PlatformError, match="account_blocked"):
        await door.authenticator.token(key, "read")


async def test_a_ticket_has_the_scopes_of_the_key_that_bought_it_and_ends_with_it() -> None:
    door = Door()
    user_id = door.database.sign_up()
    principal = await door.authenticator.token(await door.key(user_id, "read"), "read")
    first, second, third = (door.tickets.issue(principal, "chat").text for _ in range(3))
    assert (await door.authenticator.ticket(first, "chat", "read")).key_id == principal.key_id
    with pytest.raises(PlatformError, match="forbidden"):
        await door.authenticator.ticket(second, "chat", "chat")
    await door.credentials.revoke_key(user_id, principal.key_id or "")
    with pytest.raises(PlatformError, match="unauthorized"):
        await door.authenticator.ticket(third, "chat", "read")


async def test_a_ticket_is_refused_after_the_sign_out_of_its_user_also_where_it_was_spent_before() -> None:
    door = Door()
    principal = await door.authenticator.token(door.token(), "read")
    fresh, spent = (door.tickets.issue(principal, "chat").text for _ in range(2))
    ticket_id = (await door.authenticator.ticket(spent, "chat", "read")).ticket_id or ""
    cursor = EventCursor("e1", 7, door.tickets.proof(ticket_id, "e1"))
    assert await door.authenticator.spent_ticket(spent, "chat", cursor, "read")
    door.database.sign_ins.clear()
    with pytest.raises(PlatformError, match="unauthorized"):
        await door.authenticator.ticket(fresh, "chat", "read")
    with pytest.raises(PlatformError, match="unauthorized"):
        await door.authenticator.spent_ticket(spent, "chat", cursor, "read")
