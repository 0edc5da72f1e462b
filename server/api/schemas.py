"""Models of responses for the OpenAPI document. Tests validate every response of the handlers with them."""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from server.ports import Scope
from server.protocol.codes import ErrorCode
from server.protocol.shapes import AgentStatus, CostStatus, MessageStatus, ToolStatus, TurnStatus

Money = Annotated[str, Field(pattern=r"^-?\d+(\.\d+)?$", description="US dollars as a decimal string.")]


class Answer(BaseModel):
    """Clients ignore unknown fields: fields may be added."""

    model_config = ConfigDict(extra="forbid")


class AgentModel(Answer):
    name: str
    is_demo: bool = Field(description="The local stack's demo model, which understands little.")


class SignUp(Answer):
    is_open: bool
    domains: list[str] | None = Field(description="Only addresses of these mail domains may register; null: all.")
    allows_anonymous: bool = Field(description="Whether users of Supabase's anonymous sign-in are accepted.")


class DemoUser(Answer):
    email: str
    password: str


class About(Answer):
    version: str
    environment: Literal["development", "production", "test"]
    model: AgentModel
    sign_up: SignUp
    demo_user: DemoUser | None = Field(
        description="A user for trying it out: sign in with it, or register it if it is unknown. null in production."
    )


class User(Answer):
    id: UUID
    email: str
    name: str | None
    agent_status: AgentStatus
    created_at: datetime


class Profile(User):
    agent_id: str | None
    updated_at: datetime


class Deleting(Answer):
    """The rest of a deletion is done in the background."""

    status: Literal["deleting"]


class SignedIn(Answer):
    access_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds.")
    expires_at: datetime
    refresh_token: str
    user: User


class ConfirmationRequired(Answer):
    status: Literal["confirmation_required"]
    email: str | None = Field(description="null if only a link's token was sent.")


class MailRequested(Answer):
    """The same whether an account exists or not."""

    status: Literal["mail_requested"]
    email: str


class EmailChanged(Answer):
    status: Literal["changed"]
    email: str


class ApiKey(Answer):
    id: UUID
    name: str
    prefix: str = Field(description="The public part of the key.", examples=["chat_1f0c5a7e93b2"])
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None = Field(description="null: never.")
    last_used_at: datetime | None = Field(description="To the minute.")


class NewApiKey(ApiKey):
    key: str = Field(description="The key itself. No later answer has it.")


class ApiKeys(Answer):
    data: list[ApiKey] = Field(description="Newest first.")


class SignIn(Answer):
    id: UUID
    current: bool = Field(description="The sign-in of this request's token.")
    created_at: datetime
    last_seen_at: datetime = Field(description="When its access token was last refreshed.")
    user_agent: str | None = Field(description="What the client called itself when it last asked for tokens.")
    address: str | None = Field(description="The client's IP address at that time.")


class Connection(Answer):
    kind: Literal["websocket", "events"]
    opened_at: datetime
    session_id: UUID | None = Field(description="The sign-in with which it was opened.")
    api_key_id: UUID | None = Field(description="The API key with which it was opened.")


class SignIns(Answer):
    data: list[SignIn] = Field(description="Newest first.")
    connections: list[Connection] = Field(description="Open on any instance, newest first.")


class ReasoningStep(Answer):
    """What the model thought between two other steps: `reasoning.delta`, joined."""

    type: Literal["reasoning.delta"]
    text: str
    truncated: Literal[True] | None = Field(default=None, description="Missing unless the text was cut.")


class ToolCallStep(Answer):
    """A tool call of the agent, as in `tool.called`."""

    type: Literal["tool.called"]
    call_id: str
    name: str = Field(examples=["memory_insert"])
    arguments: str = Field(description="JSON text, unless it was cut.")
    truncated: bool


class ToolReturnStep(Answer):
    """The end of a tool call, as in `tool.returned`. A call without one did not end."""

    type: Literal["tool.returned"]
    call_id: str
    name: str
    status: ToolStatus


Step = Annotated[ReasoningStep | ToolCallStep | ToolReturnStep, Field(discriminator="type")]
"""A part of a reply that is not its text: an event without `epoch`, `seq`, `at`, `turn_id` and `attempt`."""


class Message(Answer):
    id: UUID
    turn_id: UUID
    role: Literal["user", "assistant"]
    content: str
    status: MessageStatus
    tokens_used: int | None
    cost: Money | None
    created_at: datetime
    steps: list[Step] | None = Field(
        default=None,
        description="The reasoning and tool calls of a reply, in their order, at most 64 KiB: a step that was cut has"
        " `truncated`. Only of replies, in chat/turns/{id} and in chat/history with `include=steps`.",
    )
    cursor: str | None = Field(
        default=None,
        description="The message's place, to read those before or after it. Only in chat/history.",
        examples=["cDg"],
    )


class Usage(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    model_calls: int


class TurnError(Answer):
    code: ErrorCode
    message: str
    retryable: bool
    retry_after: int | None = Field(description="Seconds.")
    spent: Money | None = Field(default=None, description="Of a budget that is used up.")
    limit: Money | None = None
    resets_at: datetime | None = None


class Turn(Answer):
    id: UUID
    status: TurnStatus
    attempt: int
    client_message_id: str
    user_message: Message
    message: Message | None
    usage: Usage | None
    cost: Money | None
    cost_status: CostStatus | None
    error: TurnError | None
    reason: str | None = Field(description="Why a completed turn has no text.")
    queue_position: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class History(Answer):
    data: list[Message] = Field(description="Newest first.")
    has_more: bool
    next_cursor: str | None


class Ticket(Answer):
    ticket: str
    expires_at: datetime


class TurnSoFar(Answer):
    turn_id: UUID
    text: str


class Agent(Answer):
    status: AgentStatus
    reason: str | None
    agent_id: str | None
    model: str
    turn: TurnSoFar | None = Field(description="The running turn and its text so far.")
    queued: int = Field(description="Waiting turns.")
    updated_at: datetime


class Block(Answer):
    label: str
    value: str
    limit: int = Field(description="Characters.")
    description: str | None
    updated_at: datetime | None


class Passage(Answer):
    id: str
    text: str
    created_at: datetime | None


class Archival(Answer):
    data: list[Passage]
    has_more: bool
    next_cursor: str | None


class Context(Answer):
    """The use of the agent's context window, in tokens."""

    window: int
    used: int
    system: int
    blocks: int
    tools: int
    messages: int


class AgentMemory(Answer):
    blocks: list[Block]
    archival: Archival
    context: Context


class Spending(Answer):
    messages: int
    tokens: int
    cost: Money


class ModelSpending(Answer):
    """Usage of one model. Cached tokens are part of the prompt, reasoning tokens of the completion."""

    model: str
    model_calls: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    tokens: int
    cost: Money


class Background(Answer):
    """The agent's own calls, such as the summary of a long conversation."""

    cost: Money


class SpendingRange(Spending):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)

    first: date = Field(alias="from")
    last: date = Field(alias="to")
    background: Background = Field(description="The part of the models' costs that belongs to no message.")


class SpendingDay(Spending):
    date: date
    models: list[ModelSpending] = Field(description="The most expensive first.")


class Budget(Answer):
    limit: Money | None = Field(description="null: no limit.")
    spent: Money = Field(description="Sum of the ledger since `started_at`.")
    remaining: Money | None
    period: str | None = Field(description="Such as `30d` or `1mo`.")
    started_at: datetime | None
    resets_at: datetime | None


class Projection(Answer):
    """Forecast of the spending at the end of the budget's period, else of the UTC month, at the current rate."""

    until: datetime
    cost: Money


class UserUsage(Answer):
    """All days are days in UTC."""

    total: Spending = Field(description="Since registration.")
    today: Spending
    range: SpendingRange
    models: list[ModelSpending] = Field(description="Each model over the range, the most expensive first.")
    days: list[SpendingDay] = Field(description="The days of the range with usage, oldest first.")
    budget: Budget | None = Field(description="null if neither a limit nor a period is known.")
    projection: Projection | None = Field(description="null outside the period.")
    currency: Literal["USD"]
    timezone: Literal["UTC"]


class Health(Answer):
    status: Literal["ok"]


class Check(Answer):
    status: Literal["up", "down"]
    latency_ms: float
    error: str | None


class Ready(Answer):
    status: Literal["ready", "degraded", "starting", "draining"]
    version: str
    checks: dict[str, Check]


class FieldProblem(Answer):
    pointer: str = Field(description="A JSON pointer into the body, or into the query as an object.")
    detail: str


class Problem(Answer):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: ErrorCode
    retryable: bool
    retry_after: int | None = Field(default=None, description="Seconds; equal to the Retry-After header.")
    rate_limit: str | None = Field(default=None, description="Which limit refused the request (docs/protocol.md).")
    retry_at: datetime | None = Field(default=None, description="When there is room again.")
    request_id: str
    errors: list[FieldProblem]
    turn: Turn | None = Field(default=None, description="The failed turn, if there is one.")
    session: SignedIn | None = Field(default=None, description="Of auth/reset, if only the new password was refused.")
    spent: Money | None = Field(default=None, description="Of a budget that is used up.")
    limit: Money | None = None
    resets_at: datetime | None = None
