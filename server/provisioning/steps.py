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
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus

log = structlog.get_logger(__name__)

UNDER_REPAIR = "under repair"
"""Stands for the config_hash while every step is taken again: a run that is cut off is continued as thoroughly."""
UNDER_REBUILD = "under rebuild"
"""As `UNDER_REPAIR`, where an operator wants everything made anew at an agent service that does not know the user."""
IN_DOUBT = "in doubt"
"""Stands for the config_hash while the agent is looked for that its service did not find: every step at that service is
taken again, also by the run that continues."""

AGENT_ANEW = "Your agent was deleted at the agent service and has been made anew: its memory begins again."
CONVERSATION_ANEW = (
    "Your conversation was deleted at the agent service and begins again. "
    "What your agent wrote into its memory is kept."
)
"""The reasons that stay beside an active agent until its next repair or change: nothing else tells the user."""


class OrganizationGoneError(PlatformError):
    """The agent service does not know the user's organization: it is another one, or was emptied. Making everything
    anew would hide that, and cost every user their memory."""

    def __init__(self) -> None:
        sentence = "The agent service no longer knows your agent. This needs an operator."
        super().__init__(ErrorCode.AGENT_UNAVAILABLE, sentence, retryable=False)


@dataclass(frozen=True, slots=True)
class ProvisioningContext:
    """What the steps work with: the services, the key ring, and what every user's account and agent should be like."""

    billing: BillingGateway
    directory: AgentDirectory
    keys: KeyRing
    plan: Plan
    template: AgentTemplate


@dataclass(frozen=True, slots=True)
class Job:
    """One user's account at the start of a step. `doubtful`: this step was begun before, with an unknown result.
    `rebuild`: an operator wants everything made anew, also where the agent service has lost the organization."""

    account: Account
    doubtful: bool
    rebuild: bool = False

    @property
    def user_id(self) -> str:
        return self.account.user_id

    def key(self, keys: KeyRing) -> SecretStr:
        """The user's own key. Raises UnreadableSecretError."""
        return key_of(self.account, keys)


def key_of(account: Account, keys: KeyRing) -> SecretStr:
    """The account's key in plain text. Raises UnreadableSecretError."""
    return keys.open(account.user_id, _made(account.encrypted_key))


def lost_just_now(account: Account) -> bool:
    """Whether the agent is being provisioned again because something of it was gone."""
    return account.agent_status is AgentStatus.PROVISIONING and account.status_reason in (AGENT_ANEW, CONVERSATION_ANEW)


Need = Callable[[Account, AgentTemplate], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """`needed` decides from the stored account alone; `run` returns what to store. `purpose` completes a sentence
    for the user: "while …"."""

    name: str
    purpose: str
    needed: Need
    run: Callable[[ProvisioningContext, Job], Awaitable[AccountChange]]


def is_outdated(account: Account, template: AgentTemplate) -> bool:
    """Made with another configuration, or not known to be finished with this one."""
    return account.config_hash != template.hash


def is_complete(account: Account, template: AgentTemplate) -> bool:
    """Whether the agent can be talked to as it is."""
    ready = account.agent_status is AgentStatus.ACTIVE and account.handle is not None
    return ready and not is_outdated(account, template)


def is_introduced(account: Account) -> bool:
    """Whether the agent was told the name that the profile has."""
    return account.name is None or account.name == account.told_name


def part(field: str) -> Need:
    """A part of the agent is needed where it is not recorded, and looked at again where the agent is outdated."""
    return lambda account, template: not getattr(account, field) or is_outdated(account, template)


async def _choose_key(context: ProvisioningContext, job: Job) -> AccountChange:
    """Make the key's value here and store it before LiteLLM learns it: a crash in between can repeat the same key.

    Looked at again (a repair), a readable key is only moved to the current SECRET_KEY; an unreadable one is lost and
    replaced."""
    stored = job.account.encrypted_key
    try:
        if stored is not None:
            return moved_key(context.keys, job.user_id, stored)
    except UnreadableSecretError:  # nobody can use it any more: replaced here, at LiteLLM and at the agent's provider
        log.warning("key.replaced", user_id=job.user_id)
    return fresh_key(context, job.user_id)


def moved_key(keys: KeyRing, user_id: str, stored: str) -> AccountChange:
    """The same key under the current SECRET_KEY, with its hash; no change where it is. Raises UnreadableSecretError."""
    moved = keys.reseal(user_id, stored)
    if moved is None:
        return AccountChange()
    return AccountChange(encrypted_key=moved, key_hash=fingerprint(keys.open(user_id, moved)))


def fresh_key(context: ProvisioningContext, user_id: str) -> AccountChange:
    """A new value for the user's key, encrypted, and its hash. Nobody else knows it yet."""
    key = SecretStr("sk-" + secrets.token_urlsafe(32))
    return AccountChange(encrypted_key=context.keys.seal(user_id, key), key_hash=fingerprint(key))


async def _create_customer(context: ProvisioningContext, job: Job) -> AccountChange:
    await context.billing.ensure_customer(job.user_id, job.account.email, context.plan)
    return AccountChange(customer_ready=True)


async def _register_key(context: ProvisioningContext, job: Job) -> AccountChange:
    await context.billing.ensure_key(job.user_id, job.key(context.keys))
    return AccountChange(key_ready=True)


async def _make_organization(context: ProvisioningContext, job: Job) -> AccountChange:
    """One on record is kept while it is there, and replaced only where an operator wants that."""
    known = job.account.organization_id
    if known is not None and await context.directory.has_organization(known):
        return AccountChange()
    found = await context.directory.find_organization(job.user_id) if job.doubtful else None
    if known is not None and found is None and not job.rebuild:
        log.error("agent.organization_gone", user_id=job.user_id, organization_id=known)
        raise OrganizationGoneError
    return AccountChange(organization_id=found or await context.directory.create_organization(job.user_id))


async def _make_member(context: ProvisioningContext, job: Job) -> AccountChange:
    organization = _made(job.account.organization_id)
    member = await context.directory.ensure_member(organization, job.user_id, search=job.doubtful)
    return AccountChange(member_id=member)


async def _add_tools(context: ProvisioningContext, job: Job) -> AccountChange:
    await context.directory.ensure_tools(_made(job.account.member_id))
    return AccountChange(tools_ready=True)


async def _connect_provider(context: ProvisioningContext, job: Job) -> AccountChange:
    provider = await context.directory.ensure_provider(
        _made(job.account.member_id), job.key(context.keys), context.template
    )
    return AccountChange(provider_id=provider)


async def _make_agent(context: ProvisioningContext, job: Job) -> AccountChange:
    """An agent that is not the one on record knows nothing: the user is told."""
    account, known = job.account, job.account.agent_id
    member = _made(account.member_id)
    agent = await context.directory.ensure_agent(member, job.user_id, account.name, context.template, known=known)
    if known in (None, agent):
        is_new = known is None and not job.doubtful  # one that was there already may know another name
        return AccountChange(agent_id=agent, told_name=account.name if is_new else None)
    log.warning("agent.replaced", user_id=job.user_id, old=known, new=agent)
    return AccountChange(agent_id=agent, agent_status=AgentStatus.PROVISIONING, status_reason=AGENT_ANEW)


async def _open_conversation(context: ProvisioningContext, job: Job) -> AccountChange:
    account, known = job.account, job.account.conversation_id
    member, agent = _made(account.member_id), _made(account.agent_id)
    conversation = await context.directory.ensure_conversation(member, agent, known=known)
    if known in (None, conversation) or lost_just_now(account):
        return AccountChange(conversation_id=conversation)
    log.warning("conversation.replaced", user_id=job.user_id, old=known, new=conversation)
    return AccountChange(
        conversation_id=conversation, agent_status=AgentStatus.PROVISIONING, status_reason=CONVERSATION_ANEW
    )


async def _activate(context: ProvisioningContext, job: Job) -> AccountChange:
    """What the user has just lost stays as the reason."""
    reason = None if lost_just_now(job.account) else ""
    return AccountChange(agent_status=AgentStatus.ACTIVE, status_reason=reason, config_hash=context.template.hash)


BILLING_STEPS: tuple[Step, ...] = (
    Step("key_value", "making your model key", lambda account, _: account.encrypted_key is None, _choose_key),
    Step("customer", "opening your billing account", lambda account, _: not account.customer_ready, _create_customer),
    Step("key", "registering your model key", lambda account, _: not account.key_ready, _register_key),
)
AGENT_STEPS: tuple[Step, ...] = (
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
STEPS = (*BILLING_STEPS, *AGENT_STEPS)


def _made(value: str | None) -> str:
    """What an earlier step recorded."""
    assert value is not None, "the steps before this one record what it needs"
    return value
