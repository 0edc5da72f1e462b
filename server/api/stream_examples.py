"""Examples of what the WebSocket and the event streams carry, for the AsyncAPI document: one conversation."""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from server.api import stream_schemas as received
from server.protocol import frames as sent
from server.protocol.shapes import Json

_USER: Final = "6f0d2a52-6c5e-4a6b-9d0e-3a8f6f6b1c11"
_TURN: Final = "0b1c9e8e-7a54-4f35-8a3a-6f5f2e6a7b01"
_MESSAGE_ID: Final = "message-1"
_AT: Final = "2026-11-26T18:03:02.114Z"
_USER_MESSAGE: Final[Json] = {
    "id": "3f4b8f0e-5b5e-4e0e-9a58-0c6a6e4f2d10",
    "turn_id": _TURN,
    "role": "user",
    "content": "Remember that I like green tea.",
    "status": "complete",
    "tokens_used": None,
    "cost": None,
    "created_at": _AT,
}
_REPLY: Final[Json] = {
    "id": "a2d4d8a8-0f55-4f52-8f6f-2b8f3c9d5e20",
    "turn_id": _TURN,
    "role": "assistant",
    "content": "Noted: green tea.",
    "status": "complete",
    "tokens_used": 4210,
    "cost": "0.127140",
    "created_at": "2026-11-26T18:03:04.820Z",
}
_USAGE: Final[Json] = {
    "prompt_tokens": 4200,
    "completion_tokens": 10,
    "total_tokens": 4210,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
    "model_calls": 1,
}
_COMPLETED: Final[Json] = {
    "id": _TURN,
    "status": "completed",
    "attempt": 1,
    "client_message_id": _MESSAGE_ID,
    "user_message": _USER_MESSAGE,
    "message": _REPLY,
    "usage": _USAGE,
    "cost": "0.12714",
    "cost_status": "estimated",
    "error": None,
    "reason": None,
    "queue_position": None,
    "created_at": _AT,
    "started_at": "2026-11-26T18:03:02.120Z",
    "finished_at": "2026-11-26T18:03:04.820Z",
}
_FAILED: Final[Json] = {
    **_COMPLETED,
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
    **_COMPLETED,
    "status": "cancelled",
    "message": {**_REPLY, "content": "Noted: ", "status": "partial", "tokens_used": None, "cost": None},
    "usage": None,
    "cost": None,
    "cost_status": None,
}
_EPOCH: Final = "0kvqUGjW6Dkf"


def _event(type_: str, seq: int, **fields: object) -> Json:
    return {"type": type_, "epoch": _EPOCH, "seq": seq, "at": _AT, **fields}


def _of_turn(type_: str, seq: int, **fields: object) -> Json:
    return _event(type_, seq, turn_id=_TURN, attempt=1, **fields)


_CALL: Final[Json] = {
    "call_id": "call-1",
    "name": "memory_insert",
    "arguments": '{"label": "human", "new_str": "Likes green tea."}',
    "truncated": False,
}
_ACCEPTED: Final[Json] = {
    "user_message": _USER_MESSAGE,
    "client_message_id": _MESSAGE_ID,
    "queue_position": None,
}

EXAMPLES: Final[Mapping[type[BaseModel], tuple[Json, ...]]] = {
    sent.AuthFrame: ({"type": "auth", "token": "<access token>"},),
    sent.MessageFrame: (
        {"type": "message", "client_message_id": _MESSAGE_ID, "content": "Remember that I like green tea."},
    ),
    sent.CancelFrame: ({"type": "cancel", "id": "2"}, {"type": "cancel", "turn_id": _TURN}),
    sent.RetryFrame: ({"type": "retry", "id": "3", "turn_id": _TURN},),
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
    received.TurnCompleted: (_of_turn("turn.completed", 16, turn=_COMPLETED),),
    received.TurnFailed: (
        _of_turn("turn.failed", 16, turn=_FAILED),
        {"type": "turn.failed", "turn_id": _TURN, "attempt": 1, "turn": _FAILED},
    ),
    received.TurnCancelled: (_of_turn("turn.cancelled", 16, turn=_CANCELLED),),
    received.UsageSettled: (_of_turn("usage.settled", 17, cost="0.12714", cost_status="settled", usage=_USAGE),),
    received.BudgetWarning: (_event("budget.warning", 18, spent="8.02", limit="10", level=80),),
    received.AgentStatusChanged: (_event("agent.status", 1, status="active", reason=None),),
    received.HistoryDeleted: (_event("history.deleted", 19, deleted_at=_AT),),
    received.ReadyFrame: (
        {
            "type": "ready",
            "cursor": f"{_EPOCH}:12",
            "resumed": False,
            "user_id": _USER,
            "limits": {
                "frame_bytes": 65536,
                "content_characters": 32000,
                "waiting_turns_per_user": 8,
                "messages_per_minute": 30,
                "ping_seconds": 25.0,
                "turn_seconds": 240.0,
            },
            "turn": {
                "turn_id": _TURN,
                "text": "Noted: ",
                "attempt": 1,
                "user_message": _USER_MESSAGE,
                "steps": [{"type": "reasoning.delta", "text": "A preference."}, {"type": "tool.called", **_CALL}],
            },
            "queued": [],
        },
    ),
    received.AckFrame: (
        {
            "type": "ack",
            "id": _MESSAGE_ID,
            "turn_id": _TURN,
            "message_id": _USER_MESSAGE["id"],
            "queue_position": None,
            "duplicate": False,
        },
    ),
    received.ErrorFrame: (
        {
            "type": "error",
            "id": _MESSAGE_ID,
            "code": "rate_limited",
            "message": "Too many requests.",
            "retryable": True,
            "retry_after": 12,
        },
    ),
    received.PongFrame: ({"type": "pong", "id": "4"},),
    received.ReconnectEvent: ({"type": "reconnect", "reason": "reconnect", "reconnect": True},),
}
