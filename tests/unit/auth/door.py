"""An authenticator on a database in memory."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta

from pydantic import SecretStr

from server.auth.api_keys import ApiKeys
from server.auth.authenticator import Authenticator
from server.auth.tickets import Tickets
from server.ports import Account, Principal, Scope
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from tests.fakes.accounts import FakeAccountStore
from tests.fakes.credentials import FakeCredentials
from tests.fakes.database import MemoryDatabase
from tests.fakes.identity import FakeIdentity
from tests.fakes.store import FakeSessionStore


@dataclass(slots=True)
class Door:
    """An authenticator with its fakes and its clock."""

    seconds: float = 0.0
    looks: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    unavailable: bool = False
    cached: int = 100
    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    identity: FakeIdentity = field(init=False)
    given: FakeCredentials | None = None
    credentials: FakeCredentials = field(init=False)
    tickets: Tickets = field(init=False)
    authenticator: Authenticator = field(init=False)

    def __post_init__(self) -> None:
        self.identity = FakeIdentity(self.database)
        self.credentials = self.given or FakeCredentials(self.database)
        self.tickets = Tickets(FakeSessionStore(self.database), SecretStr("a secret key, long enough to use"))
        self.authenticator = Authenticator(
            self.identity,
            self.tickets,
            FakeAccountStore(self.database),
            self,
            self.credentials,
            cached=self.cached,
            clock=lambda: self.seconds,
        )

    async def ensure_account(self, user_id: str, email: str, name: str | None = None) -> Account:
        self.looks += 1
        self.asked.set()
        await asyncio.sleep(0)  # yields, as a real database does
        if self.unavailable:
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)
        return await FakeAccountStore(self.database).ensure(user_id, email, name)

    def token(self, user_id: str | None = None) -> str:
        return self.identity.issue(user_id or self.database.sign_up()).access_token.get_secret_value()

    async def key(self, user_id: str, *scopes: Scope) -> str:
        """An API key of the user, who has an account."""
        principal = Principal(user_id, "", None, self.database.clock() + timedelta(hours=1))
        self.database.profile(user_id)
        _, text = await ApiKeys(self.credentials).create(principal, "script", frozenset(scopes), None)
        return text.get_secret_value()

    def block(self, user_id: str) -> None:
        row = self.database.profiles[user_id]
        row.account = replace(row.account, agent_status=AgentStatus.BLOCKED)
