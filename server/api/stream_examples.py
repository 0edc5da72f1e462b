"""Examples of what the WebSocket and the event streams carry, for the AsyncAPI document: one conversation."""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from server.api import stream_schemas as received
from server.api.examples import (
    CLIENT_MESSAGE_ID,
    COMPLETED,
    REPLY,
    SENT_AT,
    TURN_ID,
    USAGE_OF_TURN,
    USER_ID,
    USER_MESSAGE,
)
from server.protocol import frames as sent
from server.protocol.shapes import Json

_FAILED: Final[Json] = {
    **COMPLETED,
    "status": "failed",
    "message": None,
    "usage": None,
    "cost": None,
    "cost_status": None,
    "error": {
        "code": "letta_unavailable",
        "message": "The agent service is not reachable right now.",
        "retryable": True,
        "retry_after": None,
    },
}
_CANCELLED: Final[Json] = {
    **COMPLETED,
    "status": "cancelled",
    "message": {**REPLY, "content": "Noted: ", "status": "partial", "tokens_used": None, "cost": None},
    "usage": None,
    "cost": None,
    "cost_status": None,
}
_EPOCH: Final = "0kvqUGjW6Dkf"


def _event(type_: str, seq: int, **fields: object) -> Json:
    return {"type": type_, "epoch": _EPOCH, "seq": seq, "at": SENT_AT, **fields}


def _of_turn(type_: str, seq: int, **fields: object) -> Json:
    return _event(type_, seq, turn_id=TURN_ID, attempt=1, **fields)


_CALL: Final[Json] = {
    "call_id": "call-1",
    "name": "memory_insert",
    "arguments": '{"label": "human", "new_str": "Likes green tea."}',
    "truncated": False,
}
_ACCEPTED: Final[Json] = {
    "user_message": USER_MESSAGE,
    "client_message_id": CLIENT_MESSAGE_ID,
    "queue_position": None,
}

EXAMPLES: Final[Mapping[type[BaseModel], tuple[Json, ...]]] = {
    sent.AuthFrame: ({"type": "auth", "token": "<access token>"},),
    sent.MessageFrame: (
        {"type": "message", "client_message_id": CLIENT_MESSAGE_ID, "content": "Remember that I like green tea."},
    ),
    sent.CancelFrame: ({"type": "cancel", "id": "2"}, {"type": "cancel", "turn_id": TURN_ID}),
    sent.RetryFrame: ({"type": "retry", "id": "3", "turn_id": TURN_ID},),
    sent.PingFrame: ({"type": "ping", "id": "4"},),
    received.TurnQueued: (_of_turn("turn.queued", 7, **{**_ACCEPTED, "queue_position": 1}),),
    received.TurnStarted: (_of_turn("turn.started", 8, **_ACCEPTED),),
    received.MessageDelta: (
        _of_turn("message.delta", 12, text="Noted: "),
        _of_turn("message.delta", 15, first_seq=13, text="green tea."),
    ),
    received.ReasoningDelta: (_of_turn("reasoning.delta", 9, text="They told me what they like."),),
    received.ToolCalled: (
        _of_turn(
            "tool.called",
            10,
            **_CALL,
        ),
    ),
    received.ToolReturned: (_of_turn("tool.returned", 11, call_id="call-1", name="memory_insert", status="success"),),
    received.TurnCompleted: (_of_turn("turn.completed", 16, turn=COMPLETED),),
    received.TurnFailed: (
        _of_turn("turn.failed", 16, turn=_FAILED),
        {"type": "turn.failed", "turn_id": TURN_ID, "attempt": 1, "turn": _FAILED},
    ),
    received.TurnCancelled: (_of_turn("turn.cancelled", 16, turn=_CANCELLED),),
    received.UsageSettled: (_of_turn("usage.settled", 17, cost="0.12714", cost_status="settled", usage=USAGE_OF_TURN),),
    received.BudgetWarning: (_event("budget.warning", 18, spent="8.02", limit="10", level=80),),
    received.AgentStatusChanged: (_event("agent.status", 1, status="active", reason=None),),
    received.HistoryDeleted: (_event("history.deleted", 19, deleted_at=SENT_AT),),
    received.ReadyFrame: (
        {
            "type": "ready",
            "cursor": f"{_EPOCH}:12",
            "resumed": False,
            "user_id": USER_ID,
            "limits": {
                "frame_bytes": 65536,
                "content_characters": 32000,
                "waiting_turns_per_user": 8,
                "messages_per_minute": 30,
                "ping_seconds": 25.0,
                "turn_seconds": 240.0,
            },
            "turn": {
                "turn_id": TURN_ID,
                "text": "Noted: ",
                "attempt": 1,
                "user_message": USER_MESSAGE,
                "steps": [{"type": "reasoning.delta", "text": "A preference."}, {"type": "tool.called", **_CALL}],
            },
            "queued": [],
        },
    ),
    received.AckFrame: (
        {
            "type": "ack",
            "id": CLIENT_MESSAGE_ID,
            "turn_id": TURN_ID,
            "message_id": USER_MESSAGE["id"],
            "queue_position": None,
            "duplicate": False,
        },
    ),
    received.ErrorFrame: (
        {
            "type": "error",
            "id": CLIENT_MESSAGE_ID,
            "code": "rate_limited",
            "message": "Too many requests.",
            "retryable": True,
            "retry_after": 12,
        },
    ),
    received.PongFrame: ({"type": "pong", "id": "4"},),
    received.ReconnectEvent: ({"type": "reconnect", "reason": "reconnect", "reconnect": True},),
}
