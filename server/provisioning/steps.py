"""The steps that make a user's agent, in order, as data: when each is needed and what it does.

Every step may be repeated. An organization and its member cannot be looked up cheaply, so their steps are told when the
last attempt was cut off between creating and recording, and only then search before they create."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from pydantic import SecretStr

from server.keyring import KeyRing, UnreadableSecretError, fingerprint
from server.ports import Account, AccountChange, AgentDirectory, AgentTemplate, BillingGateway, Plan
from server.protocol.shapes import AgentStatus

log = structlog.get_logger(__name__)

UNDER_REPAIR = "under repair"
"""Stands for the config_hash while every step is taken again: a run that is cut off is continued as thoroughly."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the steps work with: the services, the key ring, and what every user's account and agent should be like."""

    billing: BillingGateway
    directory: AgentDirectory
    keys: KeyRing
    plan: Plan
    template: AgentTemplate


@dataclass(frozen=True, slots=True)
class Job:
    """One user's account at the start of a step. `doubtful`: this step was begun before, with an unknown result."""

    account: Account
    doubtful: bool

    @property
    def user_id(self) -> str:
        return self.account.user_id

    def key(self, keys: KeyRing) -> SecretStr:
        """The user's own key. Raises UnreadableSecretError."""
        return key_of(self.account, keys)


def key_of(account: Account, keys: KeyRing) -> SecretStr:
    """The account's key in plain text. Raises UnreadableSecretError."""
    return keys.open(account.user_id, _made(account.encrypted_key))


Need = Callable[[Account, AgentTemplate], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """`needed` decides from the stored account alone; `run` returns what to store. `purpose` completes a sentence
    for the user: "while …"."""

    name: str
    purpose: str
    needed: Need
    run: Callable[[Workshop, Job], Awaitable[AccountChange]]


def is_outdated(account: Account, template: AgentTemplate) -> bool:
    """Made with another configuration, or not known to be finished with this one."""
    return account.config_hash != template.hash


def is_complete(account: Account, template: AgentTemplate) -> bool:
    """Whether the agent can be talked to as it is."""
    ready = account.agent_status is AgentStatus.ACTIVE and account.handle is not None
    return ready and not is_outdated(account, template)


def part(field: str) -> Need:
    """A part of the agent is needed where it is not recorded, and looked at again where the agent is outdated."""
    return lambda account, template: not getattr(account, field) or is_outdated(account, template)


async def _choose_key(shop: Workshop, job: Job) -> AccountChange:
    """Make the key's value here and store it before LiteLLM learns it: a crash in between can repeat the same key.

    Looked at again (a repair), a readable key is only moved to the current SECRET_KEY; an unreadable one is lost and
    replaced."""
    stored = job.account.encrypted_key
    try:
        if stored is not None:
            return moved_key(shop.keys, job.user_id, stored)
    except UnreadableSecretError:  # nobody can use it any more: replaced here, at LiteLLM and at the agent's provider
        log.warning("key.replaced", user_id=job.user_id)
    return fresh_key(shop, job.user_id)


def moved_key(keys: KeyRing, user_id: str, stored: str) -> AccountChange:
    """The same key under the current SECRET_KEY, with its hash; no change where it is. Raises UnreadableSecretError."""
    moved = keys.reseal(user_id, stored)
    if moved is None:
        return AccountChange()
    return AccountChange(encrypted_key=moved, key_hash=fingerprint(keys.open(user_id, moved)))


def fresh_key(shop: Workshop, user_id: str) -> AccountChange:
    """A new value for the user's key, encrypted, and its hash. Nobody else knows it yet."""
    key = SecretStr("sk-" + secrets.token_urlsafe(32))
    return AccountChange(encrypted_key=shop.keys.seal(user_id, key), key_hash=fingerprint(key))


async def _create_customer(shop: Workshop, job: Job) -> AccountChange:
    await shop.billing.ensure_customer(job.user_id, job.account.email, shop.plan)
    return AccountChange(customer_ready=True)


async def _register_key(shop: Workshop, job: Job) -> AccountChange:
    await shop.billing.ensure_key(job.user_id, job.key(shop.keys))
    return AccountChange(key_ready=True)


async def _make_organization(shop: Workshop, job: Job) -> AccountChange:
    found = await shop.directory.find_organization(job.user_id) if job.doubtful else None
    return AccountChange(organization_id=found or await shop.directory.create_organization(job.user_id))


async def _make_member(shop: Workshop, job: Job) -> AccountChange:
    organization = _made(job.account.organization_id)
    member = await shop.directory.ensure_member(organization, job.user_id, search=job.doubtful)
    return AccountChange(member_id=member)


async def _add_tools(shop: Workshop, job: Job) -> AccountChange:
    await shop.directory.ensure_tools(_made(job.account.member_id))
    return AccountChange(tools_ready=True)


async def _connect_provider(shop: Workshop, job: Job) -> AccountChange:
    provider = await shop.directory.ensure_provider(_made(job.account.member_id), job.key(shop.keys), shop.template)
    return AccountChange(provider_id=provider)


async def _make_agent(shop: Workshop, job: Job) -> AccountChange:
    account = job.account
    agent = await shop.directory.ensure_agent(_made(account.member_id), job.user_id, account.name, shop.template)
    return AccountChange(agent_id=agent)


async def _open_conversation(shop: Workshop, job: Job) -> AccountChange:
    conversation = await shop.directory.ensure_conversation(_made(job.account.member_id), _made(job.account.agent_id))
    return AccountChange(conversation_id=conversation)


async def _activate(shop: Workshop, job: Job) -> AccountChange:
    return AccountChange(agent_status=AgentStatus.ACTIVE, status_reason="", config_hash=shop.template.hash)


STEPS: tuple[Step, ...] = (
    Step("key_value", "making your model key", lambda account, _: account.encrypted_key is None, _choose_key),
    Step("customer", "opening your billing account", lambda account, _: not account.customer_ready, _create_customer),
    Step("key", "registering your model key", lambda account, _: not account.key_ready, _register_key),
    Step(
        "organization",
        "making room for your agent",
        lambda account, _: account.organization_id is None,
        _make_organization,
    ),
    Step("member", "making room for your agent", lambda account, _: account.member_id is None, _make_member),
    Step("tools", "giving your agent its tools", part("tools_ready"), _add_tools),
    Step("provider", "connecting your agent to its model", part("provider_id"), _connect_provider),
    Step("agent", "making your agent", part("agent_id"), _make_agent),
    Step("conversation", "opening your conversation", part("conversation_id"), _open_conversation),
    Step("activation", "finishing", lambda account, template: not is_complete(account, template), _activate),
)


def _made(value: str | None) -> str:
    """What an earlier step recorded."""
    assert value is not None, "the steps before this one record what it needs"
    return value
