"""Wiring: the one place that knows every adapter and hands each collaborator to those who need it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final

import aiohttp
import structlog
from aiohttp import web

from server import appkeys
from server.api import table
from server.api.ratelimits import AddressLimiter
from server.authentication import Authenticator
from server.keyring import KeyRing
from server.letta_adapter.client import LettaClient
from server.letta_adapter.directory import LettaDirectory
from server.letta_adapter.gateway import LettaGateway
from server.letta_adapter.memory import LettaMemory
from server.letta_adapter.probe import LettaProbe
from server.letta_adapter.template import agent_template
from server.litellm_adapter.billing import LiteLLMBilling
from server.litellm_adapter.client import LiteLLMClient
from server.litellm_adapter.probe import LiteLLMProbe
from server.metrics import Metrics
from server.origins import Origins
from server.ports import Plan
from server.protocol.codes import ErrorCode
from server.protocol.shapes import AgentStatus
from server.provisioning.provisioner import Provisioner
from server.provisioning.repair import RepairLoop
from server.provisioning.steps import Workshop
from server.readiness import Lifecycle, Readiness
from server.resilience import Breaker, Guard
from server.sessions.attempt import AttemptServices
from server.sessions.hub import SessionHub
from server.settings import Settings
from server.settlement import Pricing
from server.supabase_adapter.accounts import SupabaseAccountStore
from server.supabase_adapter.client import SupabaseClient
from server.supabase_adapter.identity import SupabaseIdentity
from server.supabase_adapter.probe import SupabaseProbe
from server.supabase_adapter.reads import SupabaseReads
from server.supabase_adapter.sessions import SupabaseSessionStore
from server.supabase_adapter.tokens import SupabaseTokenVerifier
from server.tickets import Tickets
from server.transports.sse import EventStreams
from server.transports.websocket import WebSocketEndpoint

log = structlog.get_logger(__name__)


class Life:
    """The server's own life cycle, for whoever runs it."""

    def __init__(self, lifecycle: Lifecycle, hub: SessionHub, repair: "asyncio.Task[None]") -> None:
        self._lifecycle = lifecycle
        self._hub = hub
        self._repair = repair

    def started(self) -> None:
        """From now on this instance takes traffic."""
        self._lifecycle.phase = "running"

    async def drain(self, seconds: float) -> None:
        """Not ready, no new turns, running ones finish within `seconds`, clients are sent to reconnect."""
        self._lifecycle.phase = "draining"
        self._repair.cancel()  # two versions at once would undo each other's configuration of agents
        await self._hub.drain(seconds)


LIFE: Final = web.AppKey("life", Life)


def create_app(settings: Settings) -> web.Application:
    """The whole server as an application; adapters open when it starts and close when it is cleaned up."""
    app = web.Application()
    app[appkeys.SETTINGS] = settings
    app[appkeys.LIFECYCLE] = Lifecycle()
    app[appkeys.METRICS] = Metrics()
    app[appkeys.ORIGINS] = Origins(settings.allowed_origins, localhost_allowed=not settings.is_production)
    app[appkeys.AUTH_LIMITER] = AddressLimiter(settings.auth_requests_per_minute, settings.trusted_proxies)
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

    supabase = SupabaseClient(str(settings.supabase_url), settings.supabase_anon_key, settings.supabase_service_key)
    stack.push_async_callback(supabase.aclose)
    store, accounts = SupabaseSessionStore(supabase), SupabaseAccountStore(supabase)

    letta = LettaClient(
        str(settings.letta_base_url), settings.letta_api_token, Breaker("letta", ErrorCode.LETTA_UNAVAILABLE)
    )
    stack.push_async_callback(letta.aclose)

    http = await stack.enter_async_context(aiohttp.ClientSession())
    guard = Guard(Breaker("litellm", ErrorCode.LITELLM_UNAVAILABLE))
    litellm = LiteLLMClient(str(settings.litellm_base_url), settings.litellm_master_key, http, guard)
    billing = LiteLLMBilling(litellm)

    template = agent_template(settings.agent_model, settings.model_url_for_letta, settings.context_window)
    workshop = Workshop(
        billing=billing,
        directory=LettaDirectory(letta),
        keys=KeyRing(settings.secret_key, settings.secret_key_previous),
        plan=Plan(settings.default_budget_usd, settings.budget_period),
        template=template,
    )

    def agent_changed(user_id: str, status: AgentStatus, reason: str | None) -> None:
        hub.agent_changed(user_id, status, reason)

    provisioner = Provisioner(accounts, workshop, observer=agent_changed)
    attempts = AttemptServices(
        store=store,
        gateway=LettaGateway(letta),
        agents=provisioner,
        pricing=Pricing(billing, settings.agent_model),
        limits=settings.limits,
    )
    hub = SessionHub(attempts)

    verifier = SupabaseTokenVerifier(supabase, settings.supabase_jwt_secret)
    tickets = Tickets(store, settings.secret_key, settings.secret_key_previous, seconds=settings.limits.ticket_seconds)
    authenticator = Authenticator(verifier, tickets, accounts, provisioner)

    app[appkeys.HUB] = hub
    app[appkeys.EVENT_STREAMS] = EventStreams(hub, settings.limits)
    app[appkeys.SOCKETS] = WebSocketEndpoint(hub, authenticator, app[appkeys.ORIGINS], settings.limits)
    app[appkeys.IDENTITY] = SupabaseIdentity(supabase, settings.auth_redirect_url)
    app[appkeys.READS] = SupabaseReads(supabase)
    app[appkeys.ACCOUNTS] = accounts
    app[appkeys.PROVISIONER] = provisioner
    app[appkeys.MEMORY] = LettaMemory(letta)
    app[appkeys.BILLING] = billing
    app[appkeys.TICKETS] = tickets
    app[appkeys.AUTHENTICATOR] = authenticator
    app[appkeys.READINESS] = Readiness(
        (SupabaseProbe(supabase), LettaProbe(letta), LiteLLMProbe(litellm)), app[appkeys.LIFECYCLE]
    )
    stack.push_async_callback(provisioner.aclose)
    await stack.enter_async_context(hub.running())
    repair = asyncio.create_task(RepairLoop(provisioner, accounts, template.hash).run())
    stack.push_async_callback(_cancel, repair)
    app[LIFE] = Life(app[appkeys.LIFECYCLE], hub, repair)


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
