"""How each frame changes the state. Pure functions: what they know, they know from the state and the frame."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ai_chat_client.errors import chat_error
from ai_chat_client.state import (
    AgentState,
    BudgetState,
    Charge,
    ChatMessage,
    ChatState,
    ChatTurn,
    HistoryState,
    ReplyStatus,
    UserStatus,
    is_local,
    is_message,
    with_turns,
)
from ai_chat_client.steps import with_step, with_steps
from ai_chat_client.wire import Frame, Message, ReadyFrame, Turn, TurnQueued, TurnStarted, UsageSettled


def reduce(state: ChatState, frame: Frame) -> ChatState:  # noqa: C901, PLR0911 - a table, one line for each type
    if frame["type"] == "ready":
        return _ready(state, frame)
    if frame["type"] == "turn.queued":
        return _queued(state, frame)
    if frame["type"] == "turn.started":
        return _started(state, frame)
    if frame["type"] == "message.delta":
        text = frame["text"]
        return _change_reply(state, _Attempt.of(frame), lambda reply: replace(reply, text=reply.text + text))
    if frame["type"] in ("reasoning.delta", "tool.called", "tool.returned"):
        step: Any = frame
        return _change_reply(state, _Attempt.of(step), lambda reply: with_step(reply, step))
    if frame["type"] == "turn.completed" or frame["type"] == "turn.failed" or frame["type"] == "turn.cancelled":
        return _ended(state, frame["turn"])
    if frame["type"] == "usage.settled":
        return _settled(state, frame)
    if frame["type"] == "budget.warning":
        return replace(state, budget=BudgetState(frame["spent"], frame["limit"], frame["level"]))
    if frame["type"] == "agent.status":
        return replace(state, agent=AgentState(frame["status"], frame["reason"]))
    if frame["type"] == "history.deleted":
        return with_turns(replace(state, history=HistoryState(is_loading=False)), filter(is_local, state.turns))
    return state  # acknowledgements and errors concern the outbox; the rest this version does not know


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Which attempt of which turn, and a time for a reply that begins."""

    turn_id: str
    number: int
    at: str

    @classmethod
    def of(cls, frame: Any) -> "_Attempt":
        return cls(frame["turn_id"], frame["attempt"], frame["at"])


def _ready(state: ChatState, frame: ReadyFrame) -> ChatState:
    """Where the session stands. What is missing between here and there is loaded from the history."""
    state = replace(state, user_id=frame["user_id"], limits=frame["limits"])
    if frame["resumed"]:
        return state
    if running := frame["turn"]:
        text, steps, message = running["text"], running.get("steps"), running["user_message"]
        attempt = _Attempt(running["turn_id"], running["attempt"], message["created_at"])
        known = next((turn for turn in state.turns if turn.id == attempt.turn_id), None)
        shown = known.reply if known and known.attempt == attempt.number else None
        state = _accepted(state, attempt, message, None, "sent")
        if shown and shown.status == "streaming":
            state = _change_reply(state, attempt, lambda _: shown)
        state = _change_reply(state, attempt, lambda reply: with_steps(replace(reply, text=text), steps))
    for waiting in frame["queued"]:
        attempt = _Attempt(waiting["id"], waiting["attempt"], waiting["created_at"])
        state = _accepted(state, attempt, waiting["user_message"], waiting["client_message_id"], "queued")
    return replace(state, queue=tuple(turn["id"] for turn in frame["queued"]))


def acknowledged(state: ChatState, client_message_id: str, turn_id: str) -> ChatState:
    """The server has stored a message; an event says what becomes of it."""
    local = next((turn for turn in state.turns if is_message(turn, client_message_id)), None)
    if local is None or local.user is None:
        return state
    user = replace(local.user, turn_id=turn_id, status="sent", error=None)
    return _placed(
        state,
        turn_id,
        client_message_id,
        lambda turn: ChatTurn(turn_id, turn.attempt if turn else 0, user, turn.reply if turn else None),
    )


def reopened(state: ChatState, turn_id: str) -> ChatState:
    """The server has accepted a retry; an event says what becomes of it."""
    turn = next((turn for turn in state.turns if turn.id == turn_id), None)
    if turn is None:
        return state
    at = turn.reply.created_at if turn.reply else ""
    return _change_reply(state, _Attempt(turn_id, turn.attempt + 1, at), lambda reply: reply)


def _queued(state: ChatState, frame: TurnQueued) -> ChatState:
    state = _accepted(state, _Attempt.of(frame), frame["user_message"], frame["client_message_id"], "queued")
    return replace(state, queue=(*_without(state.queue, frame["turn_id"]), frame["turn_id"]))


def _started(state: ChatState, frame: TurnStarted) -> ChatState:
    state = _accepted(state, _Attempt.of(frame), frame["user_message"], frame["client_message_id"], "sent")
    return replace(state, queue=_without(state.queue, frame["turn_id"]))


def _accepted(
    state: ChatState,
    attempt: _Attempt,
    message: Message,
    client_message_id: str | None,
    status: Literal["queued", "sent"],
) -> ChatState:
    def changed(turn: ChatTurn | None) -> ChatTurn:
        user = user_message(message, turn.user if turn else None, status)
        reply = new_reply(attempt.turn_id, attempt.at) if status == "sent" else None
        return ChatTurn(attempt.turn_id, attempt.number, user, reply)

    return _placed(state, attempt.turn_id, client_message_id, changed)


def _ended(state: ChatState, turn: Turn) -> ChatState:
    """The end of a turn. Its text is authoritative."""
    known = next((other for other in state.turns if other.id == turn["id"]), None)
    if known and known.attempt > turn["attempt"]:
        return state  # the answer to a message that was sent again, and retried since
    error = chat_error(turn["error"]) if turn["error"] else None
    can_retry = turn["status"] != "completed" and (error is None or error.retryable)
    status: ReplyStatus = (
        "complete" if turn["status"] == "completed" else "failed" if turn["status"] == "failed" else "partial"
    )

    def changed(before: ChatTurn | None) -> ChatTurn:
        is_unsent = turn["status"] == "unsent"
        user = user_message(turn["user_message"], before.user if before else None, "unsent" if is_unsent else "sent")
        if is_unsent:
            return ChatTurn(turn["id"], turn["attempt"], replace(user, error=error, can_retry=can_retry), None)
        message = turn["message"]
        reply = (
            before.reply
            if before and before.reply
            else new_reply(turn["id"], message["created_at"] if message else turn["created_at"])
        )
        reply = replace(
            reply,
            text=message["content"] if message else "",
            status=status,
            error=error,
            can_retry=can_retry,
            note=turn["reason"],
            usage=turn["usage"],
            cost=turn["cost"],
            cost_status=turn["cost_status"],
        )
        return ChatTurn(turn["id"], turn["attempt"], user, with_steps(reply, message.get("steps") if message else None))

    state = _placed(state, turn["id"], turn["client_message_id"], changed)
    return replace(state, queue=_without(state.queue, turn["id"]))


def _settled(state: ChatState, frame: UsageSettled) -> ChatState:
    charge = Charge(frame["turn_id"], frame["cost"], frame["cost_status"], frame["usage"])

    def charged(turn: ChatTurn) -> ChatTurn:
        if turn.id != charge.turn_id or not turn.reply:
            return turn
        reply = replace(turn.reply, cost=charge.cost, cost_status=charge.cost_status, usage=charge.usage)
        return replace(turn, reply=reply)

    return replace(with_turns(state, map(charged, state.turns)), usage=charge)


def end_of_turn(turn: Turn) -> Frame | None:
    """The terminal event of an ended turn, without a number; None while it is queued or running."""
    turn_id, attempt = turn["id"], turn["attempt"]
    match turn["status"]:
        case "completed":
            return {"type": "turn.completed", "turn": turn, "turn_id": turn_id, "attempt": attempt}
        case "failed" | "unsent":
            return {"type": "turn.failed", "turn": turn, "turn_id": turn_id, "attempt": attempt}
        case "cancelled":
            return {"type": "turn.cancelled", "turn": turn, "turn_id": turn_id, "attempt": attempt}
        case _:
            return None


def _change_reply(state: ChatState, attempt: _Attempt, change: Callable[[ChatMessage], ChatMessage]) -> ChatState:
    """Change the reply of a running turn. An attempt that has not begun here is begun; an ended one stays."""

    def changed(turn: ChatTurn | None) -> ChatTurn:
        reply = None
        if turn and turn.attempt > attempt.number:
            return turn
        if turn and turn.attempt == attempt.number and turn.reply:
            if turn.reply.status != "streaming":
                return turn
            reply = turn.reply
        reply = change(reply or new_reply(attempt.turn_id, attempt.at))
        return ChatTurn(attempt.turn_id, attempt.number, turn.user if turn else None, reply)

    return _placed(state, attempt.turn_id, None, changed)


def _placed(
    state: ChatState,
    turn_id: str,
    client_message_id: str | None,
    change: Callable[[ChatTurn | None], ChatTurn],
) -> ChatState:
    """Change the turn with this id, or add one. A message of this client that was not accepted before becomes that
    turn: it moves before those that still are not, or to its copy from the history."""
    turns = list(state.turns)
    local = None
    if client_message_id is not None:
        at = next((number for number, turn in enumerate(turns) if is_message(turn, client_message_id)), None)
        local = None if at is None else turns.pop(at)
    newest_first = range(len(turns) - 1, -1, -1)  # the turn that changes is among the last
    index = next((number for number in newest_first if turns[number].id == turn_id), None)
    known = None if index is None else turns[index]
    changed = change(replace(local, reply=known.reply if known else None) if local else known)
    if index is not None:
        turns[index] = changed
    else:
        last_accepted = next((number for number in newest_first if not is_local(turns[number])), -1)
        turns.insert(last_accepted + 1, changed)
    return with_turns(state, turns)


def user_message(message: Message, known: ChatMessage | None, status: UserStatus) -> ChatMessage:
    """The user's message as the server has it. A message of this client keeps its id."""
    turn_id = message["turn_id"]
    message_id = known.id if known else f"{turn_id}:user"
    return ChatMessage(message_id, turn_id, "user", message["content"], status, message["created_at"])


def new_reply(turn_id: str, created_at: str) -> ChatMessage:
    return ChatMessage(f"{turn_id}:assistant", turn_id, "assistant", "", "streaming", created_at)


def _without(queue: tuple[str, ...], turn_id: str) -> tuple[str, ...]:
    return tuple(waiting for waiting in queue if waiting != turn_id)
