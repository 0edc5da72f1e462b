"""The collaborators a request handler finds in its application: one typed key each, filled by `app.py` alone."""

from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from server.authentication import AccountOpener, Authenticator
from server.metrics import Metrics
from server.origins import Origins
from server.ports import (
    Accepted,
    AccountStore,
    AgentHandle,
    AgentMemory,
    BillingGateway,
    IdentityProvider,
    NewTurn,
    TokenVerifier,
    UserReads,
)
from server.protocol.shapes import Turn
from server.readiness import Lifecycle, Readiness
from server.settings import Settings
from server.tickets import Tickets


class RunningTurn(Protocol):
    """The turn that runs now and what it has said so far."""

    @property
    def turn_id(self) -> str: ...
    @property
    def text(self) -> str: ...


class Snapshot(Protocol):
    """What a user's session is doing at one moment."""

    @property
    def turn(self) -> RunningTurn | None: ...
    @property
    def queued(self) -> Sequence[Turn]: ...


class Sessions(Protocol):
    """What REST handlers ask of the users' sessions; the session hub is one. All raise PlatformError."""

    async def send(self, new: NewTurn) -> Accepted: ...

    async def cancel(self, user_id: str, turn_id: str | None) -> Turn: ...

    async def retry(self, user_id: str, turn_id: str) -> Accepted: ...

    async def wait_for_end(self, user_id: str, turn_id: str, timeout: float) -> Turn | None:
        """The turn once its attempt ended; None while it is still open after `timeout` seconds."""
        ...

    async def snapshot(self, user_id: str) -> Snapshot: ...

    async def require_idle(self, user_id: str) -> None:
        """Raises PlatformError(busy) while one of the user's turns runs."""
        ...


class Provisioning(AccountOpener, Protocol):
    """What handlers ask of provisioning; `Provisioner` is one."""

    async def ready(
        self, user_id: str, email: str | None = None, name: str | None = None, timeout: float = 30.0
    ) -> AgentHandle:
        """The user's agent, waited for up to `timeout` seconds. Raises PlatformError(agent_unavailable)."""
        ...


SETTINGS = web.AppKey("settings", Settings)
HUB = web.AppKey[Sessions]("hub")
VERIFIER = web.AppKey[TokenVerifier]("verifier")
IDENTITY = web.AppKey[IdentityProvider]("identity")
READS = web.AppKey[UserReads]("reads")
ACCOUNTS = web.AppKey[AccountStore]("accounts")
PROVISIONER = web.AppKey[Provisioning]("provisioner")
MEMORY = web.AppKey[AgentMemory]("memory")
BILLING = web.AppKey[BillingGateway]("billing")
TICKETS = web.AppKey("tickets", Tickets)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
ORIGINS = web.AppKey("origins", Origins)
METRICS = web.AppKey("metrics", Metrics)
LIFECYCLE = web.AppKey("lifecycle", Lifecycle)
READINESS = web.AppKey("readiness", Readiness)
