"""Commands as REST requests. The answers become the frames that a socket would have answered."""

import json
from typing import Any

from ai_chat_client.errors import ChatError
from ai_chat_client.reduce import end_of_turn
from ai_chat_client.rest import Rest
from ai_chat_client.wire import CancelFrame, Command, Frame, MessageFrame, RetryFrame, Turn

Answered = MessageFrame | CancelFrame | RetryFrame
"""The commands that get an answer."""


async def answer_over_rest(rest: Rest, command: Answered) -> list[Frame]:
    command_id = id_of(command)
    try:
        turn = await _request(rest, command)
    except ChatError as error:
        stored = (error.problem or {}).get("turn")  # a stored message whose turn has ended badly
        return _acknowledged(command_id, stored) if stored else [_error_frame(command_id, error)]
    return _acknowledged(command_id, turn)


def encoded(command: Command) -> str:
    """The text of its frame."""
    return json.dumps(command, ensure_ascii=False)


def id_of(command: Answered) -> str:
    """The id that its `ack` or `error` repeats."""
    if command["type"] == "message":
        return command.get("id") or command["client_message_id"]
    return command.get("id") or ""


async def _request(rest: Rest, command: Answered) -> Turn:
    body: dict[str, Any] = {}
    if command["type"] == "message":
        path = "chat/message"
        body = {name: command.get(name) for name in ("client_message_id", "content")}
        body |= {"on_busy": command.get("on_busy", "enqueue"), "stream": False}
    elif command["type"] == "retry":
        path = f"chat/turns/{command['turn_id']}/retry"
    else:
        path = "chat/cancel"
        body = {"turn_id": command["turn_id"]} if command.get("turn_id") else {}
    posted = None if command["type"] == "retry" else body
    turn: Turn = await rest.json(path, method="POST", body=posted, headers={"Prefer": "respond-async"})
    return turn


def _acknowledged(command_id: str, turn: Turn) -> list[Frame]:
    frames: list[Frame] = [
        {
            "type": "ack",
            "id": command_id,
            "turn_id": turn["id"],
            "message_id": turn["user_message"]["id"],
            "queue_position": turn["queue_position"],
            "duplicate": False,
        }
    ]
    end = end_of_turn(turn)
    return [*frames, end] if end else frames


def _error_frame(command_id: str, error: ChatError) -> Frame:
    frame: Any = {
        "type": "error",
        "id": command_id,
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "retry_after": error.retry_after,
        "errors": list(error.errors) or None,
    }
    if error.budget:
        frame |= {"spent": error.budget.spent, "limit": error.budget.limit, "resets_at": error.budget.resets_at}
    return frame  # type: ignore[no-any-return]
