"""The wiring: the only module that knows all adapters and connects them with the components."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from aiohttp import web

from server.accounts.deletion import AccountDeletion
from server.accounts.export import RunningExports
from server.accounts.history import HistoryDeletion
from server.adapters.letta.client import LettaClient
from server.adapters.letta.gateway import LettaGateway
from server.adapters.letta.memory import LettaMemory
from server.adapters.letta.probe import LettaProbe
from server.adapters.litellm.client import LiteLLMClient
from server.adapters.litellm.probe import LiteLLMProbe
from server.adapters.redis.buckets import RedisBuckets
from server.adapters.redis.client import RedisClient
from server.adapters.redis.probe import RedisProbe
from server.adapters.redis.replicas import RedisReplicas
from server.adapters.supabase.accounts import SupabaseAccountStore
from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.credentials import SupabaseCredentials
from server.adapters.supabase.identity import SupabaseIdentity
from server.adapters.supabase.ledger import SupabaseLedger
from server.adapters.supabase.probe import SupabaseProbe
from server.adapters.supabase.reads import SupabaseReads
from server.adapters.supabase.sessions import SupabaseSessionStore
from server.adapters.supabase.tokens import SupabaseTokenVerifier
from server.admin.service import AdminService
from server.aio import TaskSet
from server.api import console, router
from server.app.clients import (
    account_export,
    admin_context,
    deletion_services,
    open_letta,
    open_litellm,
    open_redis,
    open_supabase,
    provisioning_context,
)
from server.app.lifecycle import LIFECYCLE, Lifecycle
from server.auth.api_keys import ApiKeys
from server.auth.authenticator import Authenticator
from server.auth.gate import AccountGate
from server.auth.reauthentication import Reauthentication
from server.auth.sign_ins import SignInLimits
from server.auth.tickets import Tickets
from server.auth.uniform_delay import UniformDelay
from server.billing.budgets import Budgets
from server.billing.pricing import Pricing
from server.billing.reconciler import Reconciler
from server.config.settings import Settings
from server.http import app_keys
from server.http.client_address import ClientAddresses
from server.http.origins import Origins
from server.http.rate_limits import AddressLimiter
from server.observability.metrics import Metrics
from server.observability.readiness import Readiness
from server.observability.service_health import ServiceHealth
from server.ports import AgentGateway, ControlMessage, Diagnose, Probe
from server.protocol.shapes import AgentStatus
from server.provisioning import Observer, ProvisioningContext
from server.provisioning.provisioner import Provisioner
from server.provisioning.repair import RepairLoop
from server.resilience.rate_limiter import RateLimiter
from server.sessions.events.logs import ReplicatedLogs
from server.sessions.hub import SessionHub
from server.sessions.turns.attempt import AttemptServices
from server.sessions.turns.breakable_gateway import BreakableGateway
from server.streaming.connection_list import ConnectionList
from server.streaming.credential_watch import CredentialWatch
from server.streaming.sse import EventStreams
from server.streaming.websocket import WebSocketEndpoint


def create_app(settings: Settings, diagnose: Diagnose) -> web.Application:
    """The server as an application. Its adapters open at startup and close at cleanup."""
    app = web.Application()
    app[app_keys.SETTINGS] = settings
    app[LIFECYCLE] = Lifecycle()
    app[app_keys.METRICS] = Metrics()
    app[app_keys.ORIGINS] = Origins(
        settings.allowed_origins, own_url=settings.own_url, localhost_allowed=not settings.is_production
    )
    app[app_keys.CLIENT_ADDRESSES] = ClientAddresses(settings.address_header, settings.trusted_proxies)
    app[app_keys.SERVICE_HEALTH] = ServiceHealth(diagnose)
    app[app_keys.NOW] = lambda: datetime.now(UTC)
    app[console.CONSOLE] = console.read_build() if settings.console else {}
    router.install(app)
    app.cleanup_ctx.append(_collaborators)
    return app


async def _collaborators(app: web.Application) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        await _open(app, stack)
        yield


async def _open(app: web.Application, stack: AsyncExitStack) -> None:
    settings = app[app_keys.SETTINGS]
    supabase = await stack.enter_async_context(open_supabase(settings))
    letta = await stack.enter_async_context(open_letta(settings))
    litellm = await stack.enter_async_context(open_litellm(settings))
    redis = await stack.enter_async_context(open_redis(settings))
    _set_services(app, supabase, letta, litellm, redis)
    shared = None if redis is None else RedisBuckets(redis, _deployment(settings))
    limiter = _set_limiter(app, shared)

    store, accounts = SupabaseSessionStore(supabase), SupabaseAccountStore(supabase)
    agents = provisioning_context(settings, letta, litellm)

    def agent_changed(user_id: str, status: AgentStatus, reason: str | None) -> None:
        hub.agent_changed(user_id, status, reason)

    provisioner = Provisioner(accounts, agents, observer=agent_changed)
    attempts = AttemptServices(
        store=store,
        gateway=_gateway(app, letta),
        agents=provisioner,
        pricing=Pricing(agents.billing, settings.agent_model),
        limits=settings.limits,
    )
    ledger = SupabaseLedger(supabase)
    budgets = Budgets(ledger, agents.billing)
    app[app_keys.BUDGETS] = budgets
    logs = None if redis is None else _shared(redis, attempts, settings)
    hub, watch = _sessions(app, attempts, logs, budgets)
    tickets = Tickets(store, settings.secret_key, settings.secret_key_previous, seconds=settings.limits.ticket_seconds)
    verifier = SupabaseTokenVerifier(supabase, settings.supabase_jwt_secret, settings.supabase_jwt_issuer)
    app[app_keys.ACCOUNTS] = accounts
    app[app_keys.PROVISIONER] = provisioner
    app[app_keys.TICKETS] = tickets
    authenticator = Authenticator(
        verifier,
        tickets,
        accounts,
        provisioner,
        app[app_keys.CREDENTIALS],
        api_keys=app[app_keys.API_KEYS],
        limiter=limiter,
        gate=AccountGate(settings.registration, settings.allow_anonymous),
        requires_aal2=settings.require_aal2,
    )
    app[app_keys.AUTHENTICATOR] = authenticator
    secret_keys = [key for key in (settings.secret_key, settings.secret_key_previous) if key is not None]
    sign_in_limits = SignInLimits(accounts, limiter, secret_keys)
    app[app_keys.SIGN_IN_LIMITS] = sign_in_limits
    app[app_keys.REAUTHENTICATION] = Reauthentication(
        app[app_keys.IDENTITY], verifier, accounts, sign_in_limits, app[app_keys.NOW]
    )
    app[app_keys.UNIFORM_DELAY] = uniform_delay = UniformDelay()
    _set_sessions(app, hub)
    deletion = _set_account_services(app, supabase, letta, agents, agent_changed)
    data = deletion, app[app_keys.ACCOUNT_EXPORT]
    app[app_keys.ADMIN] = AdminService(
        admin_context(settings, supabase, agents, provisioner, data=data, publish=hub.agent_changed)
    )

    stack.push_async_callback(provisioner.aclose)
    stack.push_async_callback(deletion.aclose)
    stack.push_async_callback(authenticator.aclose)
    stack.push_async_callback(sign_in_limits.aclose)
    stack.push_async_callback(uniform_delay.aclose)
    await stack.enter_async_context(hub.running())
    background = await stack.enter_async_context(TaskSet("background"))
    background.create(Reconciler(ledger, agents.billing, budgets, hub.announce).run(), name="billing")
    background.create(watch.run(), name="credentials")
    repair = background.create(RepairLoop(provisioner, accounts, agents.template.hash).run(), name="repair")
    background.create(deletion.run_periodically(), name="deletion")

    async def drain(seconds: float) -> None:
        repair.cancel()  # two versions at once would undo each other's configuration of agents
        await hub.drain(seconds)

    app[LIFECYCLE].on_drain = drain


def _gateway(app: web.Application, letta: LettaClient) -> AgentGateway:
    """The agents; in development with streams that `development` can break."""
    gateway = LettaGateway(letta)
    if app[app_keys.SETTINGS].is_production:
        return gateway
    app[app_keys.BREAKABLE] = breakable = BreakableGateway(gateway)
    return breakable


def _set_limiter(app: web.Application, shared: RedisBuckets | None) -> RateLimiter:
    """Set the keys of what counts requests."""
    app[app_keys.LIMITER] = limiter = RateLimiter(app[app_keys.SETTINGS].rates, shared)
    app[app_keys.AUTH_LIMITER] = AddressLimiter(limiter, app[app_keys.CLIENT_ADDRESSES])
    app[app_keys.API_KEYS] = ApiKeys(app[app_keys.CREDENTIALS], limiter)
    return limiter


def _sessions(
    app: web.Application, attempts: AttemptServices, logs: ReplicatedLogs | None, budgets: Budgets
) -> tuple[SessionHub, CredentialWatch]:
    """The sessions, and the watch that closes their connections."""

    def received(message: ControlMessage) -> None:
        if message.kind == "recheck":
            app[app_keys.AUTHENTICATOR].evict(message.user_id)
            watch.recheck(message.user_id)
        else:
            connections.received(message)

    hub = SessionHub(attempts, logs, has_budget=budgets.may_send_after_refresh, on_message=received)
    watch = CredentialWatch(hub, app[app_keys.CREDENTIALS])
    app[app_keys.CONNECTIONS] = connections = ConnectionList(hub)
    return hub, watch


def _shared(redis: RedisClient, attempts: AttemptServices, settings: Settings) -> ReplicatedLogs:
    """Event logs replicated through Redis."""
    return ReplicatedLogs(RedisReplicas(redis, _deployment(settings)), attempts.limits, attempts.now)


def _deployment(settings: Settings) -> str:
    """The Supabase project identifies the deployment, in a shared Redis too."""
    return hashlib.sha256(str(settings.supabase_url).encode()).hexdigest()[:12]


def _set_services(
    app: web.Application,
    supabase: SupabaseClient,
    letta: LettaClient,
    litellm: LiteLLMClient,
    redis: RedisClient | None,
) -> None:
    """Set the keys of services that handlers call directly."""
    app[app_keys.IDENTITY] = SupabaseIdentity(supabase, app[app_keys.SETTINGS].mail_link_url)
    app[app_keys.READS] = SupabaseReads(supabase)
    app[app_keys.CREDENTIALS] = SupabaseCredentials(supabase)
    app[app_keys.MEMORY] = LettaMemory(letta)
    probes: list[Probe] = [SupabaseProbe(supabase), LettaProbe(letta), LiteLLMProbe(litellm)]
    if redis is not None:
        probes.append(RedisProbe(redis))
    app[app_keys.READINESS] = Readiness(probes, lambda: app[LIFECYCLE].phase, needed_first=["supabase"])


def _set_account_services(
    app: web.Application, supabase: SupabaseClient, letta: LettaClient, agents: ProvisioningContext, observer: Observer
) -> AccountDeletion:
    """Set the keys of what is done with a user's data as a whole. Returns the deletions, whose owner closes them."""
    deletion = AccountDeletion(deletion_services(app[app_keys.SETTINGS], supabase, agents), observer)
    app[app_keys.ACCOUNT_DELETION] = deletion
    app[app_keys.ACCOUNT_EXPORT] = account_export(supabase, letta)
    app[app_keys.RUNNING_EXPORTS] = RunningExports()
    app[app_keys.HISTORY_DELETION] = HistoryDeletion(SupabaseAccountStore(supabase), agents.directory)
    return deletion


def _set_sessions(app: web.Application, hub: SessionHub) -> None:
    """Set the keys of the sessions, and of event streams and sockets."""
    limits = app[app_keys.SETTINGS].limits
    app[app_keys.HUB] = hub
    app[app_keys.EVENT_STREAMS] = EventStreams(hub, limits, app[app_keys.TICKETS])
    app[app_keys.SOCKETS] = WebSocketEndpoint(
        hub,
        app[app_keys.AUTHENTICATOR],
        app[app_keys.ORIGINS],
        limits,
        limiter=app[app_keys.LIMITER],
        addresses=app[app_keys.CLIENT_ADDRESSES],
    )
