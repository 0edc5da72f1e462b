"""Wiring: the one place that knows every adapter and hands each collaborator to those who need it."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from aiohttp import web

from server import appkeys
from server.aio import TaskSet
from server.api import table
from server.authentication import Authenticator
from server.buckets import Buckets
from server.client_address import ClientAddresses
from server.letta_adapter.client import LettaClient
from server.letta_adapter.gateway import LettaGateway
from server.letta_adapter.memory import LettaMemory
from server.letta_adapter.probe import LettaProbe
from server.lifecycle import LIFECYCLE, Lifecycle
from server.litellm_adapter.client import LiteLLMClient
from server.litellm_adapter.probe import LiteLLMProbe
from server.metrics import Metrics
from server.origins import Origins
from server.ports import Probe
from server.protocol.shapes import AgentStatus
from server.provisioning.provisioner import Provisioner
from server.provisioning.repair import RepairLoop
from server.rate_limits import AddressLimiter
from server.readiness import Readiness
from server.redis_adapter.client import RedisClient
from server.redis_adapter.probe import RedisProbe
from server.redis_adapter.replicas import RedisReplicas
from server.services import open_letta, open_litellm, open_redis, open_supabase, workshop
from server.sessions.attempt import AttemptServices
from server.sessions.events.logs import ReplicatedLogs
from server.sessions.hub import SessionHub
from server.settings import Settings
from server.settlement.budgets import Budgets
from server.settlement.pricing import Pricing
from server.settlement.settler import Settler
from server.sign_ins import SignInLimits
from server.supabase_adapter.accounts import SupabaseAccountStore
from server.supabase_adapter.client import SupabaseClient
from server.supabase_adapter.identity import SupabaseIdentity
from server.supabase_adapter.ledger import SupabaseLedger
from server.supabase_adapter.probe import SupabaseProbe
from server.supabase_adapter.reads import SupabaseReads
from server.supabase_adapter.sessions import SupabaseSessionStore
from server.supabase_adapter.tokens import SupabaseTokenVerifier
from server.tickets import Tickets
from server.transports.sse import EventStreams
from server.transports.websocket import WebSocketEndpoint


def create_app(settings: Settings) -> web.Application:
    """The whole server as an application; adapters open when it starts and close when it is cleaned up."""
    app = web.Application()
    app[appkeys.SETTINGS] = settings
    app[LIFECYCLE] = Lifecycle()
    app[appkeys.METRICS] = Metrics()
    app[appkeys.ORIGINS] = Origins(settings.allowed_origins, localhost_allowed=not settings.is_production)
    app[appkeys.CLIENT_ADDRESSES] = addresses = ClientAddresses(settings.address_header, settings.trusted_proxies)
    app[appkeys.AUTH_LIMITER] = AddressLimiter(settings.auth_requests_per_minute, addresses)
    app[appkeys.NOW] = lambda: datetime.now(UTC)
    table.install(app)
    app.cleanup_ctx.append(_collaborators)
    return app


async def _collaborators(app: web.Application) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        await _open(app, stack)
        yield


async def _open(app: web.Application, stack: AsyncExitStack) -> None:
    settings = app[appkeys.SETTINGS]
    supabase = await stack.enter_async_context(open_supabase(settings))
    letta = await stack.enter_async_context(open_letta(settings))
    litellm = await stack.enter_async_context(open_litellm(settings))
    redis = await stack.enter_async_context(open_redis(settings))
    _offer_services(app, supabase, letta, litellm, redis)

    store, accounts = SupabaseSessionStore(supabase), SupabaseAccountStore(supabase)
    agents = workshop(settings, letta, litellm)

    def agent_changed(user_id: str, status: AgentStatus, reason: str | None) -> None:
        hub.agent_changed(user_id, status, reason)

    provisioner = Provisioner(accounts, agents, observer=agent_changed)
    attempts = AttemptServices(
        store=store,
        gateway=LettaGateway(letta),
        agents=provisioner,
        pricing=Pricing(agents.billing, settings.agent_model),
        limits=settings.limits,
    )
    ledger = SupabaseLedger(supabase)
    budgets = Budgets(ledger, agents.billing)
    app[appkeys.BUDGETS] = budgets
    logs = None if redis is None else _shared(redis, attempts, settings)
    hub = SessionHub(attempts, logs, has_room=budgets.may_send_after_all)
    tickets = Tickets(store, settings.secret_key, settings.secret_key_previous, seconds=settings.limits.ticket_seconds)
    verifier = SupabaseTokenVerifier(supabase, settings.supabase_jwt_secret, settings.supabase_jwt_issuer)
    app[appkeys.ACCOUNTS] = accounts
    app[appkeys.PROVISIONER] = provisioner
    app[appkeys.TICKETS] = tickets
    authenticator = Authenticator(
        verifier, tickets, accounts, provisioner, new_accounts=Buckets(settings.new_accounts_per_minute)
    )
    app[appkeys.AUTHENTICATOR] = authenticator
    secret_keys = [key for key in (settings.secret_key, settings.secret_key_previous) if key is not None]
    sign_in_limits = SignInLimits(accounts, settings.sign_ins_per_minute, secret_keys)
    app[appkeys.SIGN_IN_LIMITS] = sign_in_limits
    _offer_sessions(app, hub)

    stack.push_async_callback(provisioner.aclose)
    stack.push_async_callback(authenticator.aclose)
    stack.push_async_callback(sign_in_limits.aclose)
    await stack.enter_async_context(hub.running())
    background = await stack.enter_async_context(TaskSet("background"))
    background.create(Settler(ledger, agents.billing, budgets, hub.tell).run(), name="settlement")
    repair = background.create(RepairLoop(provisioner, accounts, agents.template.hash).run(), name="repair")

    async def drain(seconds: float) -> None:
        repair.cancel()  # two versions at once would undo each other's configuration of agents
        await hub.drain(seconds)

    app[LIFECYCLE].on_drain = drain


def _shared(redis: RedisClient, attempts: AttemptServices, settings: Settings) -> ReplicatedLogs:
    """Instances on one Supabase project are one deployment, whatever else uses that Redis."""
    deployment = hashlib.sha256(str(settings.supabase_url).encode()).hexdigest()[:12]
    return ReplicatedLogs(RedisReplicas(redis, deployment), attempts.limits, attempts.now)


def _offer_services(
    app: web.Application,
    supabase: SupabaseClient,
    letta: LettaClient,
    litellm: LiteLLMClient,
    redis: RedisClient | None,
) -> None:
    """What handlers ask of the services directly."""
    app[appkeys.IDENTITY] = SupabaseIdentity(supabase, app[appkeys.SETTINGS].auth_redirect_url)
    app[appkeys.READS] = SupabaseReads(supabase)
    app[appkeys.MEMORY] = LettaMemory(letta)
    probes: list[Probe] = [SupabaseProbe(supabase), LettaProbe(letta), LiteLLMProbe(litellm)]
    if redis is not None:
        probes.append(RedisProbe(redis))
    app[appkeys.READINESS] = Readiness(probes, lambda: app[LIFECYCLE].phase, needed_first=["supabase"])


def _offer_sessions(app: web.Application, hub: SessionHub) -> None:
    """The sessions, and the two ways to follow one."""
    limits = app[appkeys.SETTINGS].limits
    app[appkeys.HUB] = hub
    app[appkeys.EVENT_STREAMS] = EventStreams(hub, limits, app[appkeys.TICKETS])
    app[appkeys.SOCKETS] = WebSocketEndpoint(
        hub,
        app[appkeys.AUTHENTICATOR],
        app[appkeys.ORIGINS],
        limits,
        addresses=app[appkeys.CLIENT_ADDRESSES],
    )
