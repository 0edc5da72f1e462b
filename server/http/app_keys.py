"""The services that request handlers get from their application: one typed key each, set by the wiring alone."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from aiohttp import web

from server.accounts.deletion import AccountDeletion
from server.accounts.export import AccountExport, RunningExports
from server.accounts.history import HistoryDeletion
from server.admin.service import AdminService
from server.auth.api_keys import ApiKeys
from server.auth.authenticator import Authenticator
from server.auth.reauthentication import Reauthentication
from server.auth.sign_ins import SignInLimits
from server.auth.tickets import Tickets
from server.auth.uniform_delay import UniformDelay
from server.billing.budgets import Budgets
from server.config.settings import Settings
from server.http.client_address import ClientAddresses
from server.http.origins import Origins
from server.http.rate_limits import AddressLimiter
from server.observability.metrics import Metrics
from server.observability.readiness import Readiness
from server.observability.service_health import ServiceHealth
from server.ports import (
    Access,
    AccountStore,
    AgentMemory,
    CredentialStore,
    IdentityProvider,
    NewTurn,
    OpenConnection,
    Principal,
    UserReads,
)
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.provisioning.provisioner import Provisioner
from server.resilience.rate_limiter import RateLimiter
from server.sessions.hub import SessionHub
from server.sessions.turns.breakable_gateway import BreakableGateway


class EventStreaming(Protocol):
    """Responses as Server-Sent Events; `streaming.sse.EventStreams` is one."""

    async def stream_session(
        self, request: web.Request, principal: Principal, after: EventCursor | None
    ) -> web.StreamResponse:
        """Stream the session's events from `after` on. Raises PlatformError before the response begins."""
        ...

    async def ask_to_reconnect(self, request: web.Request, error: PlatformError) -> web.StreamResponse:
        """An empty stream that makes an EventSource reconnect later, for a retryable `error`."""
        ...

    async def stream_turn(self, request: web.Request, principal: Principal, new: NewTurn) -> web.StreamResponse:
        """Accept a message and stream its turn's events. Raises PlatformError if it is refused."""
        ...


class Connections(Protocol):
    """A user's open connections; `streaming.connection_list.ConnectionList` is one."""

    async def of_user(self, user_id: str) -> list[OpenConnection]: ...


class Sockets(Protocol):
    """Serves a WebSocket from handshake to close; `streaming.websocket.WebSocketEndpoint` is one."""

    async def handle(self, request: web.Request, access: Access) -> web.WebSocketResponse: ...


SETTINGS = web.AppKey("settings", Settings)
HUB = web.AppKey("hub", SessionHub)
EVENT_STREAMS = web.AppKey[EventStreaming]("event_streams")
SOCKETS = web.AppKey[Sockets]("sockets")
IDENTITY = web.AppKey[IdentityProvider]("identity")
READS = web.AppKey[UserReads]("reads")
ACCOUNTS = web.AppKey[AccountStore]("accounts")
ADMIN = web.AppKey("admin", AdminService)
PROVISIONER = web.AppKey("provisioner", Provisioner)
ACCOUNT_DELETION = web.AppKey("account_deletion", AccountDeletion)
ACCOUNT_EXPORT = web.AppKey("account_export", AccountExport)
RUNNING_EXPORTS = web.AppKey("running_exports", RunningExports)
HISTORY_DELETION = web.AppKey("history_deletion", HistoryDeletion)
BREAKABLE = web.AppKey("breakable", BreakableGateway)
"""Set in development."""
MEMORY = web.AppKey[AgentMemory]("memory")
BUDGETS = web.AppKey("budgets", Budgets)
TICKETS = web.AppKey("tickets", Tickets)
LIMITER = web.AppKey("limiter", RateLimiter)
API_KEYS = web.AppKey("api_keys", ApiKeys)
CONNECTIONS = web.AppKey[Connections]("connections")
CREDENTIALS = web.AppKey[CredentialStore]("credentials")
AUTH_LIMITER = web.AppKey("auth_limiter", AddressLimiter)
CLIENT_ADDRESSES = web.AppKey("client_addresses", ClientAddresses)
SIGN_IN_LIMITS = web.AppKey("sign_in_limits", SignInLimits)
REAUTHENTICATION = web.AppKey("reauthentication", Reauthentication)
UNIFORM_DELAY = web.AppKey("uniform_delay", UniformDelay)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
ORIGINS = web.AppKey("origins", Origins)
METRICS = web.AppKey("metrics", Metrics)
READINESS = web.AppKey("readiness", Readiness)
SERVICE_HEALTH = web.AppKey("service_health", ServiceHealth)
NOW = web.AppKey[Callable[[], datetime]]("now")
"""The clock: returns the current time, timezone-aware."""
