"""Provisioning on the real services, in processes that tests can kill, and the resulting objects of a user at the
services."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import aiohttp

from server.adapters.letta.client import LettaClient, rows
from server.adapters.letta.directory import LettaDirectory
from server.adapters.letta.template import agent_template
from server.adapters.litellm.billing import LiteLLMBilling
from server.adapters.litellm.client import LiteLLMClient
from server.adapters.supabase.accounts import SupabaseAccountStore
from server.adapters.supabase.client import SupabaseClient
from server.app.clients import plans_of
from server.config.settings import Settings
from server.keyring import KeyRing, fingerprint
from server.ports import Account, AccountChange, AccountStore, AgentDirectory, BillingGateway
from server.protocol.codes import ErrorCode
from server.provisioning import Provisioner, ProvisioningContext
from server.resilience import Breaker, Guard
from tests.stack.supabase_users import client_of

PAGE = 1000

SAME_OWNER = "provisioning-tests"
"""All processes of a test have the name of one instance, so that a claim of the last one need not expire first."""


class Killed(BaseException):
    """The process died."""


class Executioner:
    """Counts the calls of one process to the services, and ends the process before or after the effect of the nth
    call. Renewals of its claim, which come with time, are not counted."""

    def __init__(self, nth: int, *, after: bool) -> None:
        self._left = nth
        self._after = after
        self.calls: list[str] = []

    def guard(self, service: object) -> Any:
        return _Mortal(service, self)

    async def call(self, name: str, method: Any, *args: Any, **kwargs: Any) -> Any:
        if args[1:] == (AccountChange(),):
            return await method(*args, **kwargs)
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._after):
            raise Killed
        self.calls.append(name)
        result = await method(*args, **kwargs)
        if self._left == 0:
            raise Killed
        return result


class _Mortal:
    def __init__(self, service: object, executioner: Executioner) -> None:
        self._service = service
        self._executioner = executioner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._service, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._executioner.call(name, method, *args, **kwargs)

        return call


@dataclass(frozen=True, slots=True)
class Holdings:
    """The objects of one user at the services. `key_hashes` are those of keys that do not expire, `retired` of the
    others."""

    account: Account
    key_hashes: list[str]
    retired: list[str]
    organizations: list[str]
    members: list[str]
    providers: list[str]
    agents: list[str]
    conversations: list[str]


@dataclass(frozen=True, slots=True)
class Lab:
    """The real adapters, as the server wires them."""

    settings: Settings
    supabase: SupabaseClient
    litellm: LiteLLMClient
    letta: LettaClient

    @property
    def keys(self) -> KeyRing:
        return KeyRing(self.settings.secret_key)

    def process(
        self, executioner: Executioner | None = None, *, owner: str = SAME_OWNER, litellm: LiteLLMClient | None = None
    ) -> Provisioner:
        """A new provisioner; with an executioner it can be killed at any call."""
        guard = executioner.guard if executioner else _as_is
        settings = self.settings
        context = ProvisioningContext(
            billing=cast("BillingGateway", guard(LiteLLMBilling(litellm or self.litellm))),
            directory=cast("AgentDirectory", guard(LettaDirectory(self.letta))),
            keys=self.keys,
            plans=plans_of(settings),
            template=agent_template(settings.agent_model, settings.model_url_for_letta, settings.context_window),
        )
        store = cast("AccountStore", guard(SupabaseAccountStore(self.supabase)))
        return Provisioner(store, context, owner=owner)

    async def holdings(self, user_id: str) -> Holdings:
        account = await SupabaseAccountStore(self.supabase).get(user_id)
        assert account is not None
        user = (await self.litellm.get("/user/info", {"user_id": user_id})).body
        organizations = await self._organizations(user_id)
        members = await self._rows("/v1/admin/users/", "organization_id", set(organizations))
        member = self.letta.as_member(str(account.member_id))
        agents = (await member.agents.list(tags=[f"user:{user_id}"])).items
        conversations = await member.conversations.list(agent_id=str(account.agent_id))
        return Holdings(
            account=account,
            key_hashes=[key["token"] for key in user["keys"] if not key["expires"]],
            retired=[key["token"] for key in user["keys"] if key["expires"]],
            organizations=organizations,
            members=members,
            providers=[
                row["id"] for row in await self.letta.read(member, "/v1/providers/", rows("id"), name="litellm")
            ],
            agents=[agent.id for agent in agents],
            conversations=[conversation.id for conversation in conversations],
        )

    async def _organizations(self, user_id: str) -> list[str]:
        return await self._rows("/v1/admin/orgs/", "name", {user_id})

    async def _rows(self, path: str, field: str, wanted: set[str]) -> list[str]:
        found: list[str] = []
        after: dict[str, str | int] = {}
        while page := await self.letta.read(self.letta.as_admin(), path, rows("id"), limit=PAGE, **after):
            found += [row["id"] for row in page if row[field] in wanted]
            if len(page) < PAGE:
                break  # else the last row, which another test may have deleted, would be looked up
            after = {"after": page[-1]["id"]}
        return found

    async def assert_exactly_one_of_each(self, user_id: str, *, retired: int = 0, reason: str | None = None) -> None:
        """The invariant; `retired` is the number of older keys that still exist and expire, `reason` that of the
        account."""
        held = await self.holdings(user_id)
        account = held.account
        assert (account.agent_status, account.status_reason, account.intent) == ("active", reason, None)
        assert account.encrypted_key is not None
        assert account.encrypted_key.startswith("v1:")
        assert held.key_hashes == [fingerprint(self.keys.open(user_id, account.encrypted_key))]
        assert len(held.retired) == retired
        assert held.organizations == [account.organization_id]
        assert held.members == [account.member_id]
        assert held.providers == [account.provider_id]
        assert held.agents == [account.agent_id]
        assert held.conversations == [account.conversation_id]


def _as_is(service: object) -> Any:
    return service


@asynccontextmanager
async def open_lab(env: dict[str, str]) -> AsyncIterator[Lab]:
    """Adapters to the stack that `env` describes."""
    settings = Settings.model_validate({name.lower(): value for name, value in env.items()})
    async with AsyncExitStack() as stack:
        supabase = client_of(env)
        stack.push_async_callback(supabase.aclose)
        letta = LettaClient(
            str(settings.letta_base_url), settings.letta_api_token, Breaker("letta", ErrorCode.LETTA_UNAVAILABLE)
        )
        stack.push_async_callback(letta.aclose)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        guard = Guard(Breaker("litellm", ErrorCode.LITELLM_UNAVAILABLE))
        litellm = LiteLLMClient(str(settings.litellm_base_url), settings.litellm_master_key, http, guard)
        yield Lab(settings, supabase, litellm, letta)
