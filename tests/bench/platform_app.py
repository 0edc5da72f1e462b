"""The server that is measured: the whole application around the real Letta adapter, with the other services in memory.

Everything else is the server's own: its HTTP server, middlewares, routes, sockets, streams, sessions and event logs.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from aiohttp import web
from pydantic import SecretStr

from server.adapters.letta.client import LettaClient
from server.adapters.letta.gateway import LettaGateway
from server.adapters.letta.probe import LettaProbe
from server.adapters.redis.client import RedisClient
from server.adapters.redis.replicas import RedisReplicas
from server.aio import TaskSet
from server.api import router
from server.api.console import CONSOLE
from server.auth.authenticator import Authenticator
from server.auth.tickets import Tickets
from server.config.settings import Settings
from server.http import app_keys
from server.http.client_address import ClientAddresses
from server.http.origins import Origins
from server.observability.metrics import Metrics
from server.observability.readiness import Readiness
from server.ports import Account, AgentHandle, Claim, Credential, Estimate, Principal
from server.protocol.codes import ErrorCode
from server.protocol.limits import Limits
from server.protocol.shapes import AgentStatus, Usage
from server.resilience import Breaker
from server.resilience.rate_limiter import RateLimiter
from server.sessions.events.logs import ReplicatedLogs
from server.sessions.hub import SessionHub
from server.sessions.turns.attempt import AttemptServices
from server.streaming.credential_watch import CredentialWatch
from server.streaming.sse import EventStreams
from server.streaming.websocket import WebSocketEndpoint
from tests.fakes.accounts import FakeAccountStore
from tests.fakes.credentials import FakeCredentials
from tests.fakes.database import MemoryDatabase, ProfileRow
from tests.fakes.reads import FakeReads
from tests.fakes.store import FakeSessionStore

_HOUR: Final = timedelta(hours=1)
_SECRET: Final = SecretStr("a secret key that is long enough for this")


class AnyToken:
    """A verifier for whom the token is the user's id."""

    async def verify(self, token: str) -> Principal:
        return Principal(token, "bench@example.com", SecretStr(token), datetime.now(UTC) + _HOUR)


class NothingEnded(FakeCredentials):
    """Credentials of users who are stored nowhere."""

    async def ended(self, credentials: Sequence[Credential]) -> set[Credential]:
        return set()


class Opener:
    """Accounts that always exist and are stored nowhere, so that only the server's own memory is measured."""

    async def ensure_account(self, user_id: str, email: str, name: str | None = None) -> Account:
        moment = datetime.now(UTC)
        return Account(
            user_id=user_id,
            email=email,
            name=name,
            agent_status=AgentStatus.ACTIVE,
            status_reason=None,
            encrypted_key=None,
            customer_ready=True,
            key_ready=True,
            organization_id=None,
            member_id=None,
            tools_ready=True,
            provider_id=None,
            agent_id=None,
            conversation_id=None,
            told_name=None,
            customer_email=email,
            config_hash=None,
            intent=None,
            created_at=moment,
            updated_at=moment,
        )

    def start(self, user_id: str) -> None:
        """Nothing to make."""


class AnyUsers(MemoryDatabase):
    """A database in which every user has signed up."""

    def profile(self, user_id: str, email: str | None = None, name: str | None = None) -> ProfileRow:
        self.users.setdefault(user_id, "bench@example.com")
        return super().profile(user_id, email, name)


class OneAgent:
    """Every user's agent, ready."""

    def prefetch(self, user_id: str) -> None: ...

    async def ready(self, user_id: str, *, timeout: float) -> AgentHandle:
        return AgentHandle("user-00000000-0000-4000-8000-000000000000", "agent-1", "conv-1")

    async def find_or_replace(self, user_id: str, gone: AgentHandle, *, timeout: float) -> AgentHandle:
        raise NotImplementedError

    async def sync_name(self, user_id: str) -> None: ...

    def key_refused(self, user_id: str) -> None: ...


class ListPrice:
    async def estimate(self, usage: Usage) -> Estimate:
        return Estimate("gpt-4", Decimal("0.00003") * usage.prompt_tokens)


class AnyAccounts(FakeSessionStore):
    """A database in which every account is open, although none is stored before its first message."""

    async def closed_accounts(self, user_ids: Sequence[str]) -> list[str]:
        return []


class OwnedElsewhere(AnyAccounts):
    """A database in which another instance owns every session."""

    async def claim(self, user_id: str, owner: str) -> Claim | None:
        return None


def platform_app(
    upstream: str, limits: Limits, redis_url: str | None, deployment: str, *, follows: bool
) -> web.Application:
    """The application, with replicas in Redis where one is named. One that `follows` owns no session: its connections
    receive what the owner of the same deployment publishes."""
    app = web.Application()
    app[app_keys.SETTINGS] = _settings(upstream)
    app[app_keys.METRICS] = Metrics()
    app[app_keys.ORIGINS] = Origins((), localhost_allowed=True)
    app[app_keys.CLIENT_ADDRESSES] = ClientAddresses(None)
    app[app_keys.LIMITER] = RateLimiter({})
    app[app_keys.NOW] = lambda: datetime.now(UTC)
    app[CONSOLE] = {}
    router.install(app)

    async def collaborators(app: web.Application) -> AsyncIterator[None]:
        letta = LettaClient(upstream, SecretStr("password"), Breaker("letta", ErrorCode.LETTA_UNAVAILABLE))
        app[app_keys.READINESS] = Readiness([LettaProbe(letta)], lambda: "running")
        database = AnyUsers()
        store = OwnedElsewhere(database) if follows else AnyAccounts(database)
        attempts = AttemptServices(store, LettaGateway(letta), OneAgent(), ListPrice(), limits)
        hub = SessionHub(attempts, _shared(redis_url, deployment, attempts))
        watch = _set_edges(app, database, hub, limits)
        async with aclosing(letta), hub.running(), TaskSet("background") as background:
            background.create(watch.run(), name="credentials")
            yield

    app.cleanup_ctx.append(collaborators)
    return app


def _shared(redis_url: str | None, deployment: str, attempts: AttemptServices) -> ReplicatedLogs | None:
    if redis_url is None:
        return None
    backend = RedisReplicas(RedisClient(SecretStr(redis_url)), deployment)
    return ReplicatedLogs(backend, attempts.limits, attempts.now)


def _set_edges(app: web.Application, database: AnyUsers, hub: SessionHub, limits: Limits) -> CredentialWatch:
    """Set the keys of what handlers use. Returns the watch that polls the credentials of open connections."""
    credentials = NothingEnded(database)
    tickets = Tickets(FakeSessionStore(database), _SECRET)
    authenticator = Authenticator(AnyToken(), tickets, FakeAccountStore(database), Opener(), credentials)
    app[app_keys.HUB] = hub
    app[app_keys.TICKETS] = tickets
    app[app_keys.AUTHENTICATOR] = authenticator
    app[app_keys.READS] = FakeReads(database, AnyToken())
    app[app_keys.EVENT_STREAMS] = EventStreams(hub, limits, tickets)
    app[app_keys.SOCKETS] = WebSocketEndpoint(hub, authenticator, app[app_keys.ORIGINS], limits)
    return CredentialWatch(hub, credentials)


def _settings(upstream: str) -> Settings:
    return Settings.model_validate(
        {
            "supabase_url": "http://supabase.test",
            "supabase_anon_key": "sb_publishable_x",
            "supabase_service_key": "sb_secret_x",
            "letta_base_url": upstream,
            "litellm_base_url": "http://litellm.test",
            "litellm_master_key": "sk-master",
            "secret_key": _SECRET,
            "environment": "production",
        }
    )
