"""The collaborators a request handler finds in its application: one typed key each, filled by `app.py` alone."""

from collections.abc import Callable
from datetime import datetime

from aiohttp import web

from server.api.ratelimits import AddressLimiter
from server.authentication import Authenticator
from server.metrics import Metrics
from server.origins import Origins
from server.ports import (
    AccountStore,
    AgentMemory,
    BillingGateway,
    IdentityProvider,
    TokenVerifier,
    UserReads,
)
from server.provisioning.provisioner import Provisioner
from server.readiness import Lifecycle, Readiness
from server.sessions.hub import SessionHub
from server.settings import Settings
from server.tickets import Tickets
from server.transports.sse import EventStreams
from server.transports.websocket import WebSocketEndpoint

SETTINGS = web.AppKey("settings", Settings)
HUB = web.AppKey("hub", SessionHub)
EVENT_STREAMS = web.AppKey("event_streams", EventStreams)
SOCKETS = web.AppKey("sockets", WebSocketEndpoint)
VERIFIER = web.AppKey[TokenVerifier]("verifier")
IDENTITY = web.AppKey[IdentityProvider]("identity")
READS = web.AppKey[UserReads]("reads")
ACCOUNTS = web.AppKey[AccountStore]("accounts")
PROVISIONER = web.AppKey("provisioner", Provisioner)
MEMORY = web.AppKey[AgentMemory]("memory")
BILLING = web.AppKey[BillingGateway]("billing")
TICKETS = web.AppKey("tickets", Tickets)
AUTH_LIMITER = web.AppKey("auth_limiter", AddressLimiter)
AUTHENTICATOR = web.AppKey("authenticator", Authenticator)
ORIGINS = web.AppKey("origins", Origins)
METRICS = web.AppKey("metrics", Metrics)
LIFECYCLE = web.AppKey("lifecycle", Lifecycle)
READINESS = web.AppKey("readiness", Readiness)
NOW = web.AppKey[Callable[[], datetime]]("now")
"""The clock: the current time, aware of its zone."""
