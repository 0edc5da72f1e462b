"""The fixture of the provisioning tests: fakes of all services, one clock, and processes that can be killed."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from pydantic import SecretStr

from server.aio import Sleep
from server.keyring import KeyRing, fingerprint
from server.ports import Account, AgentTemplate, Plan, Plans
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from server.provisioning import Provisioner, ProvisioningContext
from tests.fakes.accounts import FakeAccountStore
from tests.fakes.billing import FakeBilling
from tests.fakes.database import Hook, MemoryDatabase
from tests.fakes.directory import FakeDirectory

ANN, BOB = "ann", "bob"
KEYS = KeyRing(SecretStr("a secret key that is long enough for this"))
PLAN = Plan(Decimal(5), "30d")
TEMPLATE = AgentTemplate("gpt-4", "http://litellm/v1", "hash-1")
OTHER_TEMPLATE = AgentTemplate("gpt-5", "http://litellm/v1", "hash-2")


class Killed(BaseException):
    """The process was killed: from here on none of its handlers or clean-ups reaches a service."""


@dataclass(slots=True)
class Event:
    user_id: str
    status: AgentStatus
    reason: str | None


@dataclass(slots=True)
class World:
    """`sleep` moves the clock instead of waiting. `calls` are the operations that reached any service, in order."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    calls: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    keys: KeyRing = KEYS
    template: AgentTemplate = TEMPLATE
    database: MemoryDatabase = field(init=False)
    billing: FakeBilling = field(init=False)
    directory: FakeDirectory = field(init=False)

    def __post_init__(self) -> None:
        self.database = MemoryDatabase(clock=lambda: self.now, users={ANN: "ann@example.com", BOB: "bob@example.com"})
        self.billing, self.directory = FakeBilling(clock=lambda: self.now), FakeDirectory()
        self.intercept()

    @property
    def store(self) -> FakeAccountStore:
        return FakeAccountStore(self.database)

    async def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        await asyncio.sleep(0)

    def clock(self) -> float:
        return self.now.timestamp()

    def account(self, user_id: str = ANN) -> Account:
        return self.database.profiles[user_id].account

    def key_hash(self, user_id: str = ANN) -> str:
        """The stored hash of the user's key."""
        found = self.database.profiles[user_id].key_hash
        assert found is not None
        return found

    def set_account(self, user_id: str = ANN, **changes: object) -> None:
        row = self.database.profiles[user_id]
        row.account = replace(row.account, **changes)  # type: ignore[arg-type]

    def process(self, sleep: Sleep | None = None) -> Provisioner:
        """A new provisioner, as of another instance or after a restart. `sleep` replaces the world's."""
        context = ProvisioningContext(
            self.billing, self.directory, self.keys, Plans("default", {"default": PLAN}), self.template
        )
        return Provisioner(self.store, context, observer=self._observe, sleep=sleep or self.sleep, clock=self.clock)

    def intercept(self, before: Hook | None = None, after: Hook | None = None) -> None:
        """Await `before` and `after` around the effect of every operation of every service."""

        async def reached(operation: str) -> None:
            self.calls.append(operation)
            if before is not None:
                await before(operation)

        for service in (self.database, self.billing, self.directory):
            service.before, service.after = reached, after

    def kill(self, nth: int, *, when: str) -> None:
        """Kill the process at the nth operation from now, `before` or `after` its effect."""
        remaining = nth

        async def before(_: str) -> None:
            nonlocal remaining
            remaining -= 1
            if remaining < 0 or (remaining == 0 and when == "before"):
                raise Killed

        async def after(_: str) -> None:
            if remaining <= 0:
                raise Killed

        self.intercept(before, after)

    def fail(self, operation: str, error: Callable[[], Exception]) -> None:
        """Let an operation raise before its effect, until `intercept()` is called again."""

        async def before(name: str) -> None:
            if name == operation:
                raise error()

        self.intercept(before)

    def _observe(self, user_id: str, status: AgentStatus, reason: str | None) -> None:
        self.events.append(Event(user_id, status, reason))

    def delete_agent(self, user_id: str = ANN) -> None:
        """Delete the user's agent and its conversation, as an operator of the agent service can."""
        for member in self.directory.members.values():
            member.agents[:] = [agent for agent in member.agents if agent.user_id != user_id]
            member.conversations.pop(str(self.account(user_id).agent_id), None)

    def empty_agent_service(self) -> None:
        """Remove everything from the agent service, as if it had lost its database or were another server."""
        self.directory.organizations.clear()
        self.directory.members.clear()

    def assert_exactly_one_of_each(self, user_id: str = ANN, *, reason: str | None = None) -> None:
        """The invariant: one key, the same everywhere, one organization, member, provider, agent and conversation."""
        account = self.account(user_id)
        assert account.agent_status is AgentStatus.ACTIVE
        assert account.status_reason == reason
        assert account.intent is None
        assert account.config_hash == self.template.hash
        assert account.encrypted_key is not None
        key = self.keys.open(user_id, account.encrypted_key).get_secret_value()
        assert self.billing.key_of(user_id) == key
        assert self.key_hash(user_id) == fingerprint(SecretStr(key))
        assert self.billing.customers[user_id].email == account.email
        assert [org for org, name in self.directory.organizations.items() if name == user_id] == [
            account.organization_id
        ]
        members = [one for one in self.directory.members.values() if one.organization_id == account.organization_id]
        assert [member.id for member in members] == [account.member_id]
        (member,) = members
        assert (member.has_tools, member.key, member.provider_id) == (True, key, account.provider_id)
        assert [agent.id for agent in member.agents] == [account.agent_id]
        assert member.agents[0].template == self.template
        assert member.conversations == {account.agent_id: account.conversation_id}


def unavailable(code: ErrorCode) -> Callable[[], PlatformError]:
    return lambda: PlatformError(code)
