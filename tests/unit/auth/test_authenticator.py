"""Who is let in, and how often the database is asked about it."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from server.auth.authenticator import Authenticator
from server.auth.tickets import Tickets
from server.ports import Account
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from tests.fakes.accounts import FakeAccountStore
from tests.fakes.database import MemoryDatabase
from tests.fakes.identity import FakeIdentity
from tests.fakes.store import FakeSessionStore


@dataclass(slots=True)
class Door:
    """An authenticator, what it asks, and its clock."""

    seconds: float = 0.0
    looks: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    away: bool = False
    cached: int = 100
    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    identity: FakeIdentity = field(init=False)
    tickets: Tickets = field(init=False)
    authenticator: Authenticator = field(init=False)

    def __post_init__(self) -> None:
        self.identity = FakeIdentity(self.database)
        self.tickets = Tickets(FakeSessionStore(self.database), SecretStr("a secret key, long enough to use"))
        self.authenticator = Authenticator(
            self.identity,
            self.tickets,
            FakeAccountStore(self.database),
            self,
            cached=self.cached,
            clock=lambda: self.seconds,
        )

    async def ensure_account(self, user_id: str, email: str, name: str | None = None) -> Account:
        self.looks += 1
        self.asked.set()
        await asyncio.sleep(0)  # as a database takes its time
        if self.away:
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)
        return await FakeAccountStore(self.database).ensure(user_id, email, name)

    def token(self, user_id: str | None = None) -> str:
        return self.identity.issue(user_id or self.database.sign_up()).access_token.get_secret_value()

    def block(self, user_id: str) -> None:
        row = self.database.profiles[user_id]
        row.account = replace(row.account, agent_status=AgentStatus.BLOCKED)


async def test_an_account_is_looked_at_once_in_a_while_not_with_every_request() -> None:
    door = Door()
    token = door.token()
    for _ in range(5):
        await door.authenticator.token(token)
    assert door.looks == 1
    door.seconds += 16
    await door.authenticator.token(token)
    assert door.looks == 2


async def test_all_devices_that_come_at_once_share_one_look_at_their_account() -> None:
    door = Door()
    token, other = door.token(), door.token()
    await asyncio.gather(*(door.authenticator.token(one) for one in (token, other) * 30))
    assert door.looks == 2
    door.seconds += 16
    await asyncio.gather(*(door.authenticator.token(token) for _ in range(30)))
    assert door.looks == 3


async def test_a_look_that_fails_fails_for_all_who_shared_it_and_is_made_again() -> None:
    door = Door(away=True)
    token = door.token()
    asked = [door.authenticator.token(token) for _ in range(5)]
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert {error.code for error in errors if isinstance(error, PlatformError)} == {ErrorCode.SUPABASE_UNAVAILABLE}
    assert (len(errors), door.looks) == (5, 1)
    door.away = False
    await door.authenticator.token(token)
    assert door.looks == 2


async def test_a_device_that_leaves_takes_nobody_elses_look_with_it() -> None:
    door = Door()
    token = door.token()
    leaving, staying = (asyncio.create_task(door.authenticator.token(token)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).user_id
    assert door.looks == 1


async def test_who_waits_for_an_account_as_the_server_ends_is_told_that_it_drains() -> None:
    door = Door()
    coming = asyncio.create_task(door.authenticator.token(door.token()))
    await door.asked.wait()
    await door.authenticator.aclose()
    with pytest.raises(PlatformError) as refused:
        await coming
    assert refused.value.code is ErrorCode.DRAINING


async def test_the_token_itself_is_verified_every_time() -> None:
    door = Door()
    token = door.token()
    await door.authenticator.token(token)
    await door.authenticator.token(token)
    assert door.identity.verified == 2


async def test_what_cannot_be_a_token_never_reaches_the_verifier() -> None:
    door = Door()
    for token in ("é", "\udcff"):
        with pytest.raises(PlatformError, match="unauthorized"):
            await door.authenticator.header(f"Bearer {token}")
    assert door.identity.verified == 0


async def test_a_blocked_user_is_refused_at_the_next_look_and_from_then_on() -> None:
    door = Door()
    user_id = door.database.sign_up()
    token = door.token(user_id)
    await door.authenticator.token(token)
    door.block(user_id)
    door.seconds += 16
    for _ in range(2):
        with pytest.raises(PlatformError, match="account_blocked"):
            await door.authenticator.token(token)


async def test_known_users_stay_in_while_supabase_is_away_and_new_ones_are_told() -> None:
    door = Door()
    known, new = door.token(), door.token()
    await door.authenticator.token(known)
    door.away = True
    door.seconds += 3600
    assert await door.authenticator.token(known)
    with pytest.raises(PlatformError, match="supabase_unavailable"):
        await door.authenticator.token(new)


async def test_memory_of_users_is_bounded() -> None:
    door = Door(cached=2)
    first = door.token()
    for token in (first, door.token(), door.token()):
        await door.authenticator.token(token)
    await door.authenticator.token(first)
    assert door.looks == 4


async def test_a_ticket_lets_its_user_in_without_a_token() -> None:
    door = Door()
    user_id = door.database.sign_up("ann@example.com")
    principal = await door.authenticator.token(door.token(user_id))
    ticket = door.tickets.issue(principal, "chat")
    admitted = await door.authenticator.ticket(ticket.text, "chat")
    assert (admitted.user_id, admitted.email) == (user_id, "ann@example.com")
    assert admitted.expires_at == principal.expires_at
    assert admitted.token.get_secret_value() == ""


async def test_a_ticket_of_a_blocked_or_deleted_user_opens_nothing() -> None:
    door = Door()
    blocked, deleted = door.database.sign_up(), door.database.sign_up()
    for user_id, code in ((blocked, "account_blocked"), (deleted, "unauthorized")):
        principal = await door.authenticator.token(door.token(user_id))
        ticket = door.tickets.issue(principal, "chat")
        if user_id == blocked:
            door.block(user_id)
        else:
            door.database.delete_user(user_id)
        with pytest.raises(PlatformError, match=code):
            await door.authenticator.ticket(ticket.text, "chat")


async def test_an_expired_token_is_refused_however_well_known_its_user() -> None:
    door = Door()
    user_id = door.database.sign_up()
    await door.authenticator.token(door.token(user_id))
    expired = door.identity.issue(user_id, timedelta(seconds=-1)).access_token.get_secret_value()
    with pytest.raises(PlatformError, match="token_expired"):
        await door.authenticator.token(expired)
