"""The AsyncAPI document: what the WebSocket and the event streams carry, from the models that validate it."""

import inspect
from collections.abc import Iterable
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from server.api.openapi import without_null_defaults
from server.api.stream_examples import EXAMPLES
from server.api.stream_schemas import AnyEvent, SocketFrame, StreamFrame
from server.protocol.codes import CLOSE_CODES
from server.protocol.frames import AnyClientFrame
from server.protocol.shapes import Json

Models = tuple[type[BaseModel], ...]

SENT: Final[Models] = get_args(AnyClientFrame)
"""What clients send over the WebSocket."""
EVENTS: Final[Models] = get_args(AnyEvent)
SOCKET_FRAMES: Final[Models] = get_args(SocketFrame)
STREAM_FRAMES: Final[Models] = get_args(StreamFrame)
RECEIVED: Final[Models] = tuple(dict.fromkeys((*EVENTS, *SOCKET_FRAMES, *STREAM_FRAMES)))
"""What clients receive, over the WebSocket or an event stream."""

_SCHEMA: Final = "#/components/schemas/{model}"
_SOCKET: Final = "/api/v1/chat/stream"
_SESSION: Final = "/api/v1/chat/events"
_MESSAGE: Final = "/api/v1/chat/message"


def document(version: str) -> Json:
    """The AsyncAPI 3.1 description of the WebSocket and of both event streams."""
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "AI Chat Platform",
            "version": version,
            "description": "One session per user: numbered events that all of the user's connections receive, and the "
            "commands that any of them may send. The rules of resuming are in docs/protocol.md.",
            "license": {"name": "MIT"},
            "tags": [{"name": "chat", "description": "The session of a user."}],
        },
        "defaultContentType": "application/json",
        "channels": {
            "socket": _channel(_SOCKET, "The session over a WebSocket.", (*SENT, *EVENTS, *SOCKET_FRAMES))
            | {"bindings": {"ws": {"method": "GET", "query": _QUERY}}},
            "session": _channel(_SESSION, "The session as server-sent events.", (*EVENTS, *STREAM_FRAMES))
            | {"bindings": {"http": {}}},
            "message": _channel(_MESSAGE, "The events of one turn, as the answer to POST.", (*EVENTS, *STREAM_FRAMES)),
        },
        "operations": {
            "command": _operation("receive", "socket", "What a client sends.", SENT),
            "socketEvents": _operation("send", "socket", "What a socket receives.", (*EVENTS, *SOCKET_FRAMES)),
            "sessionEvents": _operation("send", "session", "What a stream receives.", (*EVENTS, *STREAM_FRAMES)),
            "turnEvents": _operation("send", "message", "What the answer holds.", (*EVENTS, *STREAM_FRAMES)),
        },
        "components": {
            "messages": {name_of(model): _message(model) for model in (*SENT, *RECEIVED)},
            "schemas": schemas(),
        },
        "x-close-codes": [
            {"code": close.code, "reason": close.reason, "reconnect": close.reconnect, "meaning": close.meaning}
            for close in CLOSE_CODES
        ],
    }


def schemas() -> Json:
    """The JSON Schemas of all messages, by the names of their models."""
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in SENT]
    wanted += [(model, "serialization") for model in RECEIVED]
    _, definitions = models_json_schema(wanted, ref_template=_SCHEMA)
    found: Json = definitions["$defs"]
    for name, schema in found.items():
        if name not in {model.__name__ for model in SENT}:
            schema.pop("additionalProperties", None)  # fields may be added to what clients receive
    for model in SENT:
        without_null_defaults(found[model.__name__])
    _name_discriminators(found)
    return found


def _name_discriminators(schema: Any) -> None:
    """Give each discriminator as the name of its property, as AsyncAPI has it; pydantic writes OpenAPI's objects."""
    if isinstance(schema, dict):
        if isinstance(found := schema.get("discriminator"), dict) and "propertyName" in found:
            schema["discriminator"] = found["propertyName"]
        for value in schema.values():
            _name_discriminators(value)
    elif isinstance(schema, list):
        for value in schema:
            _name_discriminators(value)


def name_of(model: type[BaseModel]) -> str:
    """The message's name: its `type`, which commands and what they are answered with do not share."""
    [type_] = get_args(model.model_fields["type"].annotation)
    return f"command.{type_}" if model in SENT else str(type_)


def _channel(address: str, summary: str, models: Iterable[type[BaseModel]]) -> Json:
    messages = {name_of(model): {"$ref": f"#/components/messages/{name_of(model)}"} for model in models}
    return {"address": address, "summary": summary, "messages": messages}


def _operation(action: str, channel: str, summary: str, models: Iterable[type[BaseModel]]) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "description": f"{summary} Each message is a JSON object, and its `type` says which one.",
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name_of(model)}"} for model in models],
    }


def _message(model: type[BaseModel]) -> Json:
    return {
        "name": name_of(model).removeprefix("command."),
        "title": model.__name__,
        "summary": inspect.cleandoc(model.__doc__ or "").partition("\n")[0],
        "contentType": "application/json",
        "payload": {"$ref": _SCHEMA.format(model=model.__name__)},
        "examples": [{"payload": example} for example in EXAMPLES[model]],
    }


_QUERY: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "after": {"type": "string", "description": "Resume after this cursor, `epoch:seq`."},
        "ticket": {"type": "string", "description": "Of POST chat/ticket, instead of a token."},
    },
}
