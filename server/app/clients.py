"""Context managers for the clients of the services in the settings, used by the server and by commands."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import aiohttp

from server.accounts.deletion import AccountDeletion, DeletionServices
from server.accounts.export import AccountExport
from server.adapters.letta.client import LettaClient
from server.adapters.letta.directory import LettaDirectory
from server.adapters.letta.memory import LettaMemory
from server.adapters.letta.template import agent_template
from server.adapters.litellm.billing import LiteLLMBilling
from server.adapters.litellm.client import LiteLLMClient
from server.adapters.redis.client import RedisClient
from server.adapters.supabase.accounts import SupabaseAccountStore
from server.adapters.supabase.admin import SupabaseAdminStore
from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.export import SupabaseExportStore
from server.adapters.supabase.ledger import SupabaseLedger
from server.adapters.supabase.sessions import SupabaseSessionStore
from server.adapters.supabase.user_creation import SupabaseUserCreation
from server.admin.service import AdminContext, Publish
from server.config.settings import Settings
from server.keyring import KeyRing
from server.ports import Plan, Plans
from server.protocol.codes import ErrorCode
from server.provisioning import Provisioner
from server.provisioning.steps import ProvisioningContext
from server.resilience import Breaker, Guard

ATTEMPTS = 3


@asynccontextmanager
async def open_supabase(settings: Settings) -> AsyncIterator[SupabaseClient]:
    """The project at SUPABASE_URL."""
    client = SupabaseClient(str(settings.supabase_url), settings.supabase_anon_key, settings.supabase_service_key)
    async with aclosing(client):
        yield client


@asynccontextmanager
async def open_letta(settings: Settings, *, attempts: int = ATTEMPTS) -> AsyncIterator[LettaClient]:
    """The agent server at LETTA_BASE_URL; idempotent calls are attempted `attempts` times."""
    breaker = Breaker("letta", ErrorCode.LETTA_UNAVAILABLE)
    client = LettaClient(str(settings.letta_base_url), settings.letta_api_token, breaker, attempts=attempts)
    async with aclosing(client):
        yield client


@asynccontextmanager
async def open_litellm(settings: Settings, *, attempts: int = ATTEMPTS) -> AsyncIterator[LiteLLMClient]:
    """The model gateway at LITELLM_BASE_URL; idempotent calls are attempted `attempts` times."""
    guard = Guard(Breaker("litellm", ErrorCode.LITELLM_UNAVAILABLE), attempts=attempts)
    async with aiohttp.ClientSession() as http:
        yield LiteLLMClient(str(settings.litellm_base_url), settings.litellm_master_key, http, guard)


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[RedisClient | None]:
    """The Redis at REDIS_URL; None if it is not set."""
    if settings.redis_url is None:
        yield None
        return
    client = RedisClient(settings.redis_url)
    async with aclosing(client):
        yield client


def provisioning_context(settings: Settings, letta: LettaClient, litellm: LiteLLMClient) -> ProvisioningContext:
    """The context in which agents are provisioned according to the settings."""
    return ProvisioningContext(
        billing=LiteLLMBilling(litellm),
        directory=LettaDirectory(letta),
        keys=KeyRing(settings.secret_key, settings.secret_key_previous),
        plans=plans_of(settings),
        template=agent_template(settings.agent_model, settings.model_url_for_letta, settings.context_window),
    )


def deletion_services(settings: Settings, supabase: SupabaseClient, agents: ProvisioningContext) -> DeletionServices:
    """The services from which users are deleted."""
    return DeletionServices(
        accounts=SupabaseAccountStore(supabase),
        turns=SupabaseSessionStore(supabase),
        billing=agents.billing,
        directory=agents.directory,
        keep_spend=settings.keep_spend_of_deleted_users,
    )


def account_export(supabase: SupabaseClient, letta: LettaClient) -> AccountExport:
    """The export of a user's data."""
    return AccountExport(SupabaseAccountStore(supabase), SupabaseExportStore(supabase), LettaMemory(letta))


def admin_context(
    settings: Settings,
    supabase: SupabaseClient,
    agents: ProvisioningContext,
    provisioner: Provisioner,
    *,
    data: tuple[AccountDeletion, AccountExport],
    publish: Publish = lambda user_id, status, reason: None,
) -> AdminContext:
    """What operators' use cases need. `publish`: see `server.admin.service.Publish`."""
    return AdminContext(
        store=SupabaseAdminStore(supabase),
        accounts=SupabaseAccountStore(supabase),
        billing=agents.billing,
        ledger=SupabaseLedger(supabase),
        provisioner=provisioner,
        plans=agents.plans,
        users=SupabaseUserCreation(supabase),
        deletion=data[0],
        export=data[1],
        agent_model=settings.agent_model,
        publish=publish,
    )


def plans_of(settings: Settings) -> Plans:
    """The plans of PLANS, and `default`, which the settings DEFAULT_… make up."""
    default = Plan(
        budget=settings.default_budget_usd,
        period=settings.budget_period,
        tokens_per_minute=settings.default_tokens_per_minute,
        requests_per_minute=settings.default_requests_per_minute,
        models=settings.default_models,
    )
    named = {name: Plan(**dict(preset)) for name, preset in settings.plans.items()}
    return Plans(settings.default_plan, {"default": default} | named)
