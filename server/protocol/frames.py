"""Frames of a connection: strict validation of clients' frames, and the server's frames without a sequence number."""

import json
from collections.abc import Iterable, Set
from itertools import islice
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, TypeAdapter
from pydantic import ValidationError as PydanticValidationError
from pydantic_core import ErrorDetails

from server.protocol.codes import ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import FieldError, PlatformError
from server.protocol.limits import Limits
from server.protocol.shapes import Json, OnBusy, Turn
from server.protocol.text import is_readable

MAX_FIELD_ERRORS = 20
"""Limits the size of the answer to a request with many invalid fields."""


def _storable_text(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain the character U+0000")
    if not is_readable(value):
        raise ValueError("must not be blank")
    return value


FrameId = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
Content = Annotated[
    str, StringConstraints(min_length=1, max_length=Limits.content_characters), AfterValidator(_storable_text)
]


class ClientFrame(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: FrameId | None = None


class AuthFrame(ClientFrame):
    """Sign in on a socket, or renew the token before it expires."""

    type: Literal["auth"]
    token: SecretStr = Field(min_length=1, max_length=16_384)


class MessageFrame(ClientFrame):
    """Send a message. Repeat it with the same `client_message_id` until it is acknowledged: it becomes one turn."""

    type: Literal["message"]
    client_message_id: FrameId
    content: Content
    on_busy: OnBusy = "enqueue"


class CancelFrame(ClientFrame):
    """Stop a turn; without an id the running one, else the first that waits."""

    type: Literal["cancel"]
    turn_id: UUID | None = None


class RetryFrame(ClientFrame):
    """Run a turn again that failed, was cancelled or was not sent."""

    type: Literal["retry"]
    turn_id: UUID


class PingFrame(ClientFrame):
    """Answered with `pong`."""

    type: Literal["ping"]


AnyClientFrame = AuthFrame | MessageFrame | CancelFrame | RetryFrame | PingFrame
_CLIENT_FRAME: TypeAdapter[AnyClientFrame] = TypeAdapter(Annotated[AnyClientFrame, Field(discriminator="type")])
_VARIANTS = ("auth", "message", "cancel", "retry", "ping")
_FIELDS: Final = frozenset().union(
    *(model.model_fields for model in (AuthFrame, MessageFrame, CancelFrame, RetryFrame, PingFrame))
)


def parse_client_frame(text: str, most_bytes: int) -> AnyClientFrame:
    """Parse one frame. Raises PlatformError(invalid_request | too_large), with the frame's id if it can be parsed."""
    if len(text) > most_bytes or len(text.encode()) > most_bytes:
        raise PlatformError(ErrorCode.TOO_LARGE, f"A frame has at most {most_bytes // 1024} KiB.")
    value = _document(text)
    if unknown := unknown_names(value, _FIELDS):
        message = "The frame has too many unknown fields."
        raise PlatformError(ErrorCode.INVALID_REQUEST, message, errors=unknown, id=_own_id(value))
    try:
        return _CLIENT_FRAME.validate_json(text, strict=False)
    except PydanticValidationError as cause:
        raise _refusal(value, cause) from cause


def unknown_names(given: Iterable[str], known: Set[str]) -> tuple[FieldError, ...]:
    """The first names that are not `known`, if there are more than `MAX_FIELD_ERRORS`; else nothing.

    Validation costs about 1 µs a field and creates an error for each unknown one, so such requests are refused before.
    """
    unknown = tuple(islice((name for name in given if name not in known), MAX_FIELD_ERRORS + 1))
    if len(unknown) <= MAX_FIELD_ERRORS:
        return ()
    return tuple(FieldError(_pointer((name,), ()), "Extra inputs are not permitted") for name in unknown[:-1])


def _document(text: str) -> Json:
    """The JSON object of a frame. Raises PlatformError(invalid_request), with its id also if only Python's parser can
    read it, which accepts half a surrogate pair and numbers of any size."""
    try:
        value: Any = orjson.loads(text)
    except orjson.JSONDecodeError as cause:
        message = "The frame is not valid JSON: half a surrogate pair is no text, and numbers have at most 64 bits."
        try:
            frame_id = _own_id(json.loads(text))
        except (ValueError, RecursionError):
            message, frame_id = "The frame is not valid JSON.", None
        raise PlatformError(ErrorCode.INVALID_REQUEST, message, id=frame_id) from cause
    if not isinstance(value, dict):
        raise PlatformError(ErrorCode.INVALID_REQUEST, "A frame is a JSON object.")
    return value


def _own_id(value: Any) -> str | None:
    """The frame's id for the answer, if it has a valid one."""
    own_id = value.get("id", value.get("client_message_id")) if isinstance(value, dict) else None
    return own_id if isinstance(own_id, str) and len(own_id) <= 128 and own_id.isprintable() else None


def field_errors(cause: PydanticValidationError, skip: tuple[str, ...] = ()) -> tuple[FieldError, ...]:
    """Pydantic's errors as JSON pointers and reasons, without the values."""
    return tuple(
        FieldError(_pointer(error["loc"], skip), error["msg"].removeprefix("Value error, "))
        for error in cause.errors(include_url=False, include_context=False, include_input=False)[:MAX_FIELD_ERRORS]
    )


def _pointer(location: tuple[int | str, ...], skip: tuple[str, ...]) -> str:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in location if part not in skip)
    return "".join(f"/{part}" for part in parts)


def _refusal(value: Json, cause: PydanticValidationError) -> PlatformError:
    frame_id = _own_id(value)
    problems: list[ErrorDetails] = cause.errors(include_url=False, include_input=False)
    if any(p["type"] == "string_too_long" and p["loc"][-1] == "content" for p in problems):
        return PlatformError(
            ErrorCode.TOO_LARGE, f"A message has at most {Limits.content_characters} characters.", id=frame_id
        )
    if problems[0]["type"] in ("union_tag_invalid", "union_tag_not_found"):
        allowed = f"must be one of: {', '.join(_VARIANTS)}"  # pydantic's own message quotes the value
        wrong = FieldError("/type", allowed)
        return PlatformError(ErrorCode.INVALID_REQUEST, f"`type` {allowed}.", errors=(wrong,), id=frame_id)
    errors = field_errors(cause, skip=_VARIANTS)
    message = f"{errors[0].pointer or '/'}: {errors[0].detail}"
    return PlatformError(ErrorCode.INVALID_REQUEST, message, errors=errors, id=frame_id)


def ack_frame(
    frame_id: str | None, *, turn_id: str | None, message_id: str | None, queue_position: int | None, duplicate: bool
) -> bytes:
    return orjson.dumps(
        {
            "type": "ack",
            "id": frame_id,
            "turn_id": turn_id,
            "message_id": message_id,
            "queue_position": queue_position,
            "duplicate": duplicate,
        }
    )


def error_frame(error: PlatformError, frame_id: str | None = None) -> bytes:
    body: dict[str, Any] = {
        "type": "error",
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
    }
    if (identifier := frame_id or error.id) is not None:
        body["id"] = identifier
    if error.retry_after_seconds is not None:
        body["retry_after"] = error.retry_after_seconds
    if error.errors:
        body["errors"] = [{"pointer": e.pointer, "detail": e.detail} for e in error.errors]
    return orjson.dumps({**body, **error.members})


def pong_frame(frame_id: str | None) -> bytes:
    return orjson.dumps({"type": "pong"} if frame_id is None else {"type": "pong", "id": frame_id})


def ready_frame(
    *,
    cursor: EventCursor,
    resumed: bool,
    user_id: str,
    limits: Limits,
    turn: Json | None,
    queued: list[Json],
) -> bytes:
    """The state of the session. A resumed connection gets no turn, since the events it missed follow."""
    return orjson.dumps(
        {
            "type": "ready",
            "cursor": str(cursor),
            "resumed": resumed,
            "user_id": user_id,
            "limits": limits.wire(),
            "turn": None if resumed else turn,
            "queued": queued,
        }
    )


def terminal_frame(turn: Turn) -> bytes:
    """The end of a turn that had ended before the request: its terminal event, without a sequence number."""
    return orjson.dumps({"type": turn.terminal_event, "turn_id": turn.id, "attempt": turn.attempt, "turn": turn.wire()})
