"""The steps that create a user's agent, in order, as data: when each is needed and what it does.

Every step may be repeated. Searching for an organization or its member is slow, so their steps search before they
create only if the last attempt may have been interrupted between creating and recording (`Job.may_have_run`)."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from pydantic import SecretStr

from server.keyring import KeyRing, UnreadableSecretError, fingerprint
from server.ports import Account, AccountChange, AgentDirectory, AgentTemplate, BillingGateway, Plans
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus

log = structlog.get_logger(__name__)

UNDER_REPAIR = "under repair"
"""Stored as the config_hash while every step is repeated, so that the run after an interruption repeats them too."""
UNDER_REBUILD = "under rebuild"
"""As `UNDER_REPAIR`, when an operator wants everything created again at an agent service that has lost the user."""
IN_DOUBT = "in doubt"
"""Stored as the config_hash while an agent that its service did not find is searched for: every step at that service is
repeated, also by the run after an interruption."""

AGENT_REPLACED = "Your agent was deleted at the agent service and has been made anew: its memory begins again."
CONVERSATION_REPLACED = (
    "Your conversation was deleted at the agent service and begins again. "
    "What your agent wrote into its memory is kept."
)
"""The reasons that stay beside an active agent until its next repair or change, since nothing else informs the user."""


class OrganizationGoneError(PlatformError):
    """The agent service does not know the user's organization: it is another server, or lost its database. Creating
    everything again would hide that, and every user would lose their agent's memory."""

    def __init__(self) -> None:
        sentence = "The agent service no longer knows your agent. This needs an operator."
        super().__init__(ErrorCode.AGENT_UNAVAILABLE, sentence, retryable=False)


@dataclass(frozen=True, slots=True)
class ProvisioningContext:
    """What the steps use: the services, the key ring, the plans, and the template of every user."""

    billing: BillingGateway
    directory: AgentDirectory
    keys: KeyRing
    plans: Plans
    template: AgentTemplate


@dataclass(frozen=True, slots=True)
class Job:
    """One user's account at the start of a step. `may_have_run`: this step was begun before, and its result is unknown.
    `rebuild`: an operator wants everything created again, also where the agent service has lost the organization."""

    account: Account
    may_have_run: bool
    rebuild: bool = False

    @property
    def user_id(self) -> str:
        return self.account.user_id

    def key(self, keys: KeyRing) -> SecretStr:
        """The user's own key. Raises UnreadableSecretError."""
        return key_of(self.account, keys)


def key_of(account: Account, keys: KeyRing) -> SecretStr:
    """The account's key in plain text. Raises UnreadableSecretError."""
    return keys.open(account.user_id, _recorded(account.encrypted_key))


def is_being_replaced(account: Account) -> bool:
    """Whether the agent is being provisioned again because it, or its conversation, was deleted."""
    return account.agent_status is AgentStatus.PROVISIONING and account.status_reason in (
        AGENT_REPLACED,
        CONVERSATION_REPLACED,
    )


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
    """Whether the agent has another configuration, or its update to this one is not known to be complete."""
    return account.config_hash != template.hash


def is_complete(account: Account, template: AgentTemplate) -> bool:
    """Whether the agent is ready and needs no step."""
    ready = account.agent_status is AgentStatus.ACTIVE and account.handle is not None
    return ready and not is_outdated(account, template)


def has_current_name(account: Account) -> bool:
    """Whether the name that was last written to the agent is the profile's."""
    return account.name is None or account.name == account.told_name


def has_current_address(account: Account) -> bool:
    """Whether the billing customer, if there is one, has the profile's e-mail address."""
    return not account.customer_ready or account.email == (account.customer_email or "")


def part(field: str) -> Need:
    """The step of a part is needed if the part is not recorded, or if the agent is outdated."""
    return lambda account, template: not getattr(account, field) or is_outdated(account, template)


async def _choose_key(context: ProvisioningContext, job: Job) -> AccountChange:
    """Create the key's value here and store it before it is registered at LiteLLM, so that a run after a crash uses the
    same key.

    A repair only re-encrypts a readable key with the current SECRET_KEY; an unreadable one is replaced."""
    stored = job.account.encrypted_key
    try:
        if stored is not None:
            return reencrypted_key(context.keys, job.user_id, stored)
    except UnreadableSecretError:  # the later steps replace it at LiteLLM and at the agent's provider
        log.warning("key.replaced", user_id=job.user_id)
    return new_key(context, job.user_id)


def reencrypted_key(keys: KeyRing, user_id: str, stored: str) -> AccountChange:
    """The same key encrypted with the current SECRET_KEY, and its hash. An empty change if it already is. Raises
    UnreadableSecretError."""
    encrypted = keys.reseal(user_id, stored)
    if encrypted is None:
        return AccountChange()
    return AccountChange(encrypted_key=encrypted, key_hash=fingerprint(keys.open(user_id, encrypted)))


def new_key(context: ProvisioningContext, user_id: str) -> AccountChange:
    """A new value for the user's key, encrypted, and its hash. It is not registered anywhere yet."""
    key = SecretStr("sk-" + secrets.token_urlsafe(32))
    return AccountChange(encrypted_key=context.keys.seal(user_id, key), key_hash=fingerprint(key))


async def _create_customer(context: ProvisioningContext, job: Job) -> AccountChange:
    name, plan = context.plans.of_new(job.account.plan)
    await context.billing.ensure_customer(job.user_id, job.account.email, plan)
    return AccountChange(customer_ready=True, customer_email=job.account.email, plan=name)


async def _register_key(context: ProvisioningContext, job: Job) -> AccountChange:
    await context.billing.ensure_key(job.user_id, job.key(context.keys))
    return AccountChange(key_ready=True)


async def _make_organization(context: ProvisioningContext, job: Job) -> AccountChange:
    """Keep the recorded organization while it exists; replace it only if an operator asks for that."""
    known = job.account.organization_id
    if known is not None and await context.directory.has_organization(known):
        return AccountChange()
    found = await context.directory.find_organization(job.user_id) if job.may_have_run else None
    if known is not None and found is None and not job.rebuild:
        log.error("agent.organization_gone", user_id=job.user_id, organization_id=known)
        raise OrganizationGoneError
    return AccountChange(organization_id=found or await context.directory.create_organization(job.user_id))


async def _make_member(context: ProvisioningContext, job: Job) -> AccountChange:
    organization = _recorded(job.account.organization_id)
    member = await context.directory.ensure_member(organization, job.user_id, search=job.may_have_run)
    return AccountChange(member_id=member)


async def _add_tools(context: ProvisioningContext, job: Job) -> AccountChange:
    await context.directory.ensure_tools(_recorded(job.account.member_id))
    return AccountChange(tools_ready=True)


async def _connect_provider(context: ProvisioningContext, job: Job) -> AccountChange:
    provider = await context.directory.ensure_provider(
        _recorded(job.account.member_id), job.key(context.keys), context.template
    )
    return AccountChange(provider_id=provider)


async def _make_agent(context: ProvisioningContext, job: Job) -> AccountChange:
    """Find or create the agent. One that is not the recorded one has an empty memory: the status reason says so."""
    account, known = job.account, job.account.agent_id
    member = _recorded(account.member_id)
    agent = await context.directory.ensure_agent(member, job.user_id, account.name, context.template, known=known)
    if known in (None, agent):
        is_new = known is None and not job.may_have_run  # an agent that was found may have another name
        return AccountChange(agent_id=agent, told_name=account.name if is_new else None)
    log.warning("agent.replaced", user_id=job.user_id, old=known, new=agent)
    return AccountChange(agent_id=agent, agent_status=AgentStatus.PROVISIONING, status_reason=AGENT_REPLACED)


async def _open_conversation(context: ProvisioningContext, job: Job) -> AccountChange:
    account, known = job.account, job.account.conversation_id
    member, agent = _recorded(account.member_id), _recorded(account.agent_id)
    conversation = await context.directory.ensure_conversation(member, agent, known=known)
    if known in (None, conversation) or is_being_replaced(account):
        return AccountChange(conversation_id=conversation)
    log.warning("conversation.replaced", user_id=job.user_id, old=known, new=conversation)
    return AccountChange(
        conversation_id=conversation, agent_status=AgentStatus.PROVISIONING, status_reason=CONVERSATION_REPLACED
    )


async def _activate(context: ProvisioningContext, job: Job) -> AccountChange:
    """Mark the agent as active. The reason of a replaced agent or conversation stays."""
    reason = None if is_being_replaced(job.account) else ""
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


def _recorded(value: str | None) -> str:
    """The value, which an earlier step has recorded."""
    assert value is not None, "the steps before this one record the value"
    return value
