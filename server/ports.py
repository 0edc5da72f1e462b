"""What the core needs of the outside world, in the core's own words: Protocols and the types that cross them.

Adapters implement these and are known to `app.py` alone. Every method may raise `PlatformError` with the code of the
service behind it (`letta_unavailable`, `litellm_unavailable`, `supabase_unavailable`) when that service cannot answer.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, Protocol

from pydantic import SecretStr

from server.protocol.shapes import AgentStatus, CostStatus, Message, OnBusy, Turn, TurnError, TurnStatus, Usage, User

# --- Who is asking --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Principal:
    """A user whose access token was verified. `token` is that token, for reads that row level security judges."""

    user_id: str
    email: str
    token: SecretStr
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a sign-in gives a client. `expires_in` in seconds."""

    access_token: SecretStr
    refresh_token: SecretStr
    expires_in: int
    expires_at: datetime
    user_id: str
    email: str


class TokenVerifier(Protocol):
    async def verify(self, token: str) -> Principal:
        """Check signature, algorithm, audience, issuer and expiry.

        Raises PlatformError(unauthorized | token_expired | supabase_unavailable).
        """
        ...


class IdentityProvider(Protocol):
    """Sign-up and sign-in. Raises PlatformError(unauthorized | weak_password | invalid_request | rate_limited)."""

    async def sign_up(self, email: str, password: SecretStr, name: str | None) -> TokenPair | None:
        """Create the user. None: the project wants the e-mail confirmed first (or the address already exists there)."""
        ...

    async def sign_in(self, email: str, password: SecretStr) -> TokenPair: ...

    async def refresh(self, refresh_token: SecretStr) -> TokenPair: ...

    async def sign_out(self, principal: Principal, scope: Literal["local", "others", "global"]) -> None: ...


# --- Turns and sessions: PostgreSQL is the truth ---------------------------------------------------------------------


class FencedError(Exception):
    """This instance no longer holds the user's session: somebody else took the lease. Stop at once, change nothing."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a user's turns: valid while `fence` is the newest for that user."""

    user_id: str
    owner: str
    fence: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A turn the agent does not remember because it failed or was cancelled: what to tell it with the next send."""

    turn_id: str
    user_text: str
    partial_reply: str


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A message as its sender gave it. `content_hash` is the SHA-256 hex of the content."""

    user_id: str
    client_message_id: str
    content: str
    content_hash: str
    on_busy: OnBusy


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stored turn. `lease` is None while another owner holds the session.

    `started`: the turn is running now, owned by `lease`, and `forgotten` goes with it. `cancelled`: waiting turns that
    an interrupt ended. `interrupted`: the running turn that was asked to stop.
    """

    turn: Turn
    duplicate: bool
    started: bool
    lease: Lease | None
    forgotten: tuple[Forgotten, ...] = ()
    cancelled: tuple[Turn, ...] = ()
    interrupted: Turn | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A session taken over: its lease, the turn that was left running, and those that wait, in order."""

    lease: Lease
    running: Turn | None
    forgotten: tuple[Forgotten, ...]
    queued: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """A turn that has just become the running one."""

    turn: Turn
    forgotten: tuple[Forgotten, ...]


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How an attempt ended. `text` is the whole (or partial) reply; `carried` are the turns the agent was reminded of.

    `cost` in US dollars, unrounded; None where no price is known.
    """

    turn_id: str
    attempt: int
    status: Literal[TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED, TurnStatus.UNSENT]
    text: str
    usage: Usage | None = None
    cost: Decimal | None = None
    cost_status: CostStatus | None = None
    error: TurnError | None = None
    carried: tuple[str, ...] = ()


class SessionStore(Protocol):
    """Turns, their order and who may run them: rows changed by compare-and-set functions, each one transaction."""

    async def claim(self, user_id: str, owner: str) -> Claim | None:
        """Take or renew the session. None: another owner's lease is still valid.

        Raises PlatformError(unauthorized) when the user was deleted.
        """
        ...

    async def renew(self, owner: str) -> dict[str, int]:
        """Heartbeat every session of this owner in one call. Returns user id → fence of those still held."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give the session up, so that another owner need not wait for the lease to expire."""
        ...

    async def unowned_work(self, limit: int) -> list[str]:
        """Users with queued or running turns whose session nobody holds."""
        ...

    async def accept(self, new: NewTurn, owner: str, *, start: bool, max_waiting: int) -> Accepted:
        """Store the message and its turn; claim the session if it is free; start the turn if nothing runs and `start`.

        The same client_message_id attaches to the same turn, so that a call whose answer was lost may be repeated: it
        then answers as a duplicate. Raises PlatformError(id_conflict | busy | queue_full | account_blocked |
        unauthorized), and then nothing was stored; unauthorized: the user was deleted.
        """
        ...

    async def retry(self, user_id: str, turn_id: str, owner: str, *, start: bool, max_waiting: int) -> Accepted:
        """Queue an ended turn again as attempt + 1. A turn already queued or running again answers as a duplicate.

        Raises PlatformError(not_found | not_retryable | queue_full | account_blocked | unauthorized).
        """
        ...

    async def start(self, lease: Lease) -> Started | None:
        """Make the first waiting turn the running one. None: nothing waits. Raises FencedError.

        A turn that runs already is returned again: the answer to the call that started it was lost.
        """
        ...

    async def set_run(self, lease: Lease, turn_id: str, attempt: int, run_id: str) -> None:
        """Remember the agent's run of the running attempt; of any other it is ignored. Raises FencedError."""
        ...

    async def finish(self, lease: Lease, end: TurnEnd) -> Turn:
        """End the attempt: assistant message, usage, daily metrics. A second call changes nothing and returns the row.

        Raises FencedError.
        """
        ...

    async def request_cancel(self, user_id: str, turn_id: str | None) -> Turn:
        """Ask for the end of a turn (the running one, else the first waiting one, when no id is given).

        A waiting turn is cancelled at once, at no charge; a running one is marked. An ended turn is returned as it is.
        Raises PlatformError(not_found).
        """
        ...

    async def open_turns(self, user_id: str) -> tuple[Turn | None, tuple[Turn, ...]]:
        """The running turn and the waiting ones, whoever owns the session."""
        ...

    async def turn(self, user_id: str, turn_id: str) -> Turn | None: ...

    async def turn_by_run(self, user_id: str, run_id: str) -> Turn | None:
        """The turn that a run of the agent belongs to, if any of ours. An earlier attempt's run is not its `run_id`."""
        ...

    async def redeem_ticket(self, ticket_id: str, expires_at: datetime) -> bool:
        """True the first time a ticket is shown, False ever after."""
        ...


# --- The agent ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AgentHandle:
    """Where a user's agent lives: `member_id` is the identity every request acts as."""

    member_id: str
    agent_id: str
    conversation_id: str


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """One message of a send. `assistant`: something the agent said before and does not remember."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(slots=True)
class RunStarted:
    run_id: str


@dataclass(slots=True)
class ReasoningDelta:
    text: str


@dataclass(slots=True)
class TextDelta:
    """A piece of the reply. Deltas of one message share `message_id`; a turn may hold several messages."""

    message_id: str
    text: str


@dataclass(slots=True)
class ToolCalled:
    """A tool call, whole. `arguments` is the JSON text the model wrote."""

    call_id: str
    name: str
    arguments: str


@dataclass(slots=True)
class ToolReturned:
    call_id: str
    name: str
    status: Literal["success", "error"]


@dataclass(slots=True)
class UsageReported:
    usage: Usage


@dataclass(slots=True)
class RunEnded:
    """The run's own end. `error` is set for failed ones."""

    status: Literal[TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED]
    error: TurnError | None = None


AgentEvent = RunStarted | ReasoningDelta | TextDelta | ToolCalled | ToolReturned | UsageReported | RunEnded


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the agent as its service records it."""

    id: str
    status: Literal["running", "completed", "failed", "cancelled"]
    created_at: datetime


class AgentBusyError(Exception):
    """The conversation is locked by a run (`run_id`, where the service says which)."""

    def __init__(self, run_id: str | None) -> None:
        self.run_id = run_id
        super().__init__(f"the conversation is busy with {run_id or 'an unknown run'}")


class StreamBrokenError(Exception):
    """The stream of a run broke off before its end: the run itself may go on."""


class AgentGateway(Protocol):
    """Talking to an agent."""

    def send(
        self, agent: AgentHandle, messages: Sequence[OutgoingMessage]
    ) -> AbstractAsyncContextManager[AsyncIterator[AgentEvent]]:
        """Send and stream the run to the end of its HTTP body. Leaving the context closes the stream, not the run.

        Entering raises AgentBusyError, PlatformError(letta_unavailable | agent_unavailable) when nothing was sent, or
        StreamBrokenError when the message may have arrived but no answer came. Iterating raises StreamBrokenError when
        the connection breaks.
        """
        ...

    async def cancel(self, agent: AgentHandle, run_id: str | None) -> None:
        """Cancel the conversation's active run. No active run is no error."""
        ...

    async def run(self, agent: AgentHandle, run_id: str) -> Run | None:
        """One run; None where the service no longer knows it."""
        ...

    async def runs_since(self, agent: AgentHandle, moment: datetime) -> list[Run]:
        """The conversation's runs created at or after `moment`, oldest first."""
        ...

    async def reply(self, agent: AgentHandle, run_id: str) -> list[AgentEvent]:
        """What an ended run produced, as the events its stream would have held: text, tools, usage, end.

        The text of a failed or cancelled run may be missing. Raises PlatformError(not_found).
        """
        ...


@dataclass(frozen=True, slots=True)
class MemoryBlock:
    """`limit` in characters."""

    label: str
    value: str
    limit: int
    description: str | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Passage:
    id: str
    text: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class PassagePage:
    data: tuple[Passage, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class ContextWindow:
    """What fills the agent's context window, in tokens."""

    window: int
    used: int
    system: int
    blocks: int
    tools: int
    messages: int


class AgentMemory(Protocol):
    """What the agent remembers."""

    async def blocks(self, agent: AgentHandle) -> list[MemoryBlock]: ...

    async def update_block(self, agent: AgentHandle, label: str, value: str) -> MemoryBlock:
        """Raises PlatformError(not_found | too_large)."""
        ...

    async def passages(self, agent: AgentHandle, query: str | None, limit: int, before: str | None) -> PassagePage:
        """Archival memory, newest first, or what matches `query`."""
        ...

    async def context(self, agent: AgentHandle) -> ContextWindow: ...


# --- Accounts and their provisioning --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """A user's profile row with what provisioning has made so far. `encrypted_key` is `v1:…`, never plaintext.

    `intent` names the step that was begun and whose result is not recorded yet.
    """

    user_id: str
    email: str
    name: str | None
    agent_status: AgentStatus
    status_reason: str | None
    encrypted_key: str | None
    customer_ready: bool
    key_ready: bool
    organization_id: str | None
    member_id: str | None
    tools_ready: bool
    provider_id: str | None
    agent_id: str | None
    conversation_id: str | None
    config_hash: str | None
    intent: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def handle(self) -> AgentHandle | None:
        """The agent, once every part of it exists."""
        if self.member_id and self.agent_id and self.conversation_id:
            return AgentHandle(self.member_id, self.agent_id, self.conversation_id)
        return None

    @property
    def user(self) -> User:
        return User(self.user_id, self.email, self.name, self.agent_status, self.created_at)


@dataclass(frozen=True, slots=True)
class AccountChange:
    """Fields of an account to set; None leaves a field as it is, `""` clears `intent` or `status_reason`.

    A blocked or deleted account keeps its status whatever is recorded.
    """

    agent_status: AgentStatus | None = None
    status_reason: str | None = None
    encrypted_key: str | None = None
    key_hash: str | None = None
    customer_ready: bool | None = None
    key_ready: bool | None = None
    organization_id: str | None = None
    member_id: str | None = None
    tools_ready: bool | None = None
    provider_id: str | None = None
    agent_id: str | None = None
    conversation_id: str | None = None
    config_hash: str | None = None
    intent: str | None = None


@dataclass(frozen=True, slots=True)
class ProvisioningClaim:
    """The right to provision one user, refused to anybody with an older fence."""

    user_id: str
    fence: int
    account: Account


class AccountStore(Protocol):
    """Profiles and the provisioning claim on them (service role)."""

    async def ensure(self, user_id: str, email: str, name: str | None) -> Account:
        """The user's profile, created as `provisioning` if it does not exist."""
        ...

    async def get(self, user_id: str) -> Account | None: ...

    async def claim(self, user_id: str, owner: str, seconds: float) -> ProvisioningClaim | None:
        """Take the user's provisioning claim for `seconds`. None: somebody else has it."""
        ...

    async def record(self, claim: ProvisioningClaim, change: AccountChange) -> Account:
        """Store a step's intent or result. Raises FencedError when the claim was taken over."""
        ...

    async def release(self, claim: ProvisioningClaim) -> None: ...

    async def incomplete(self, config_hash: str, limit: int) -> list[str]:
        """Users whose provisioning is unfinished, failed, or was done with another configuration; unclaimed ones."""
        ...

    async def rename(self, user_id: str, name: str) -> Account: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What a user may spend. `budget` in US dollars per `period` (`30d`, `1mo` …); None is unlimited."""

    budget: Decimal | None
    period: str | None


@dataclass(frozen=True, slots=True)
class Budget:
    """Where a user stands in the period, as LiteLLM (advisory, seconds late) sees it. US dollars."""

    limit: Decimal | None
    spent: Decimal
    period: str | None
    resets_at: datetime | None


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """US dollars per token. `cached` is what a cached prompt token costs; the prompt price where none is listed."""

    prompt: Decimal
    completion: Decimal
    cached: Decimal


class BillingGateway(Protocol):
    """Customers, their keys and what they spend."""

    async def ensure_customer(self, user_id: str, email: str, plan: Plan) -> None:
        """Create the customer unless it exists."""
        ...

    async def ensure_key(self, user_id: str, key: SecretStr) -> None:
        """Make `key`, a value of ours, the user's key. Repeating it changes nothing."""
        ...

    async def budget(self, user_id: str) -> Budget | None:
        """None where the customer does not exist yet."""
        ...

    async def price(self, model: str) -> ModelPrice | None:
        """The price of a model as listed now. None: no price is listed."""
        ...


@dataclass(frozen=True, slots=True)
class AgentTemplate:
    """How every user's agent is made. `hash` changes whenever an existing agent needs to be repaired.

    `model_url` is LiteLLM's as Letta reaches it, ending in /v1. `context_window` in tokens.
    """

    model: str
    model_url: str
    hash: str
    context_window: int = 32_000


class AgentDirectory(Protocol):
    """Making a user's agent, one repeatable step at a time."""

    async def create_organization(self, user_id: str) -> str: ...

    async def find_organization(self, user_id: str) -> str | None:
        """Look through all organizations for the user's: slow, only after a crash between creating and recording."""
        ...

    async def ensure_member(self, organization_id: str, user_id: str, *, search: bool = True) -> str:
        """The organization's one member. `search=False` where there cannot be one yet: the search is slow."""
        ...

    async def ensure_tools(self, member_id: str) -> None: ...

    async def ensure_provider(self, member_id: str, key: SecretStr, template: AgentTemplate) -> str: ...

    async def ensure_agent(self, member_id: str, user_id: str, name: str | None, template: AgentTemplate) -> str:
        """Find the user's agent by its tag, else create it; bring its configuration to the template's."""
        ...

    async def ensure_conversation(self, member_id: str, agent_id: str) -> str: ...


# --- What users read, judged by row level security -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Profile:
    user: User
    status_reason: str | None
    agent_id: str | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Newest first. `has_more`: there are further ones in the direction asked for."""

    data: tuple[Message, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class UsageDay:
    """One UTC day. `cost` in US dollars."""

    date: date
    messages: int
    tokens: int
    cost: Decimal


@dataclass(frozen=True, slots=True)
class UsageSum:
    messages: int
    tokens: int
    cost: Decimal


class UserReads(Protocol):
    """A user's own rows, read with that user's token."""

    async def profile(self, principal: Principal) -> Profile | None: ...

    async def history(
        self, principal: Principal, limit: int, *, before: int | None, after: int | None
    ) -> MessagePage: ...

    async def turn(self, principal: Principal, turn_id: str) -> Turn | None: ...

    async def usage_days(self, principal: Principal, first: date, last: date) -> list[UsageDay]: ...

    async def usage_total(self, principal: Principal) -> UsageSum: ...


# --- Health ---------------------------------------------------------------------------------------------------------


class Probe(Protocol):
    """One dependency as `/ready` sees it."""

    @property
    def name(self) -> str: ...

    async def ping(self) -> None:
        """Return when the service answers; raise whatever went wrong otherwise."""
        ...
