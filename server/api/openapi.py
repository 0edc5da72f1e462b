"""The OpenAPI document, generated from the served routes and the models that validate requests."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from server.api.examples import REQUESTS, RESPONSES
from server.api.schemas import Problem
from server.api.stream_schemas import StreamedEvent
from server.http.problems import MEDIA_TYPE as PROBLEM_TYPE
from server.http.problems import members as problem_members
from server.http.routes import Reply, Route
from server.protocol.codes import CLOSE_CODES, ERRORS, ErrorCode
from server.protocol.errors import FieldError, PlatformError
from server.protocol.shapes import Json

_REFERENCE: Final = "#/components/schemas/{model}"
_EVENTS: Final = "text/event-stream"
_MEDIA: Final[dict[str, Json]] = {"application/json": {"schema": {"type": "object"}}}
"""The content of replies without a model, where it is no string."""
_SERVER_SENT_EVENT: Final[Json] = {
    "schema": {
        "description": "One event of the stream.",
        "type": "object",
        "properties": {
            "id": {
                "type": "string",
                "description": "The cursor to resume behind; EventSource sends it again by itself.",
            },
            "event": {"type": "string", "description": "The `type` of the data."},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": _REFERENCE.format(model=StreamedEvent.__name__)},
            },
        },
        "required": ["event", "data"],
    }
}
"""The content of an event stream: the schema of each event, as `itemSchema` in OpenAPI 3.2."""
_FOREIGN: Final = {"ge", "gt", "le", "lt", "max_digits", "decimal_places"}
_REQUEST_ID: Final = "b60a75187e854a3a94dba16e37fcf086"
_PARSING = (ErrorCode.INVALID_REQUEST,)
_BODY = (ErrorCode.INVALID_REQUEST, ErrorCode.TOO_LARGE)
_SIGNED_IN = (
    ErrorCode.UNAUTHORIZED,
    ErrorCode.TOKEN_EXPIRED,
    ErrorCode.FORBIDDEN,
    ErrorCode.MFA_REQUIRED,
    ErrorCode.REGISTRATION_CLOSED,
    ErrorCode.ANONYMOUS_NOT_ALLOWED,
    ErrorCode.ACCOUNT_BLOCKED,
    ErrorCode.RATE_LIMITED,  # of new accounts, which a first request opens
    ErrorCode.SUPABASE_UNAVAILABLE,
)


TAGS: Final = {
    "auth": "Signing in, and proofs of an e-mail address. Any access token of the Supabase project works as well.",
    "chat": "Messages, their turns, and the session's events.",
    "agent": "The user's agent and what it remembers.",
    "user": "The user's profile and usage.",
    "admin": "For operators: users, plans, usage of all users, and the audit.",
    "operations": "Health, metrics and documentation of this server.",
}
"""The tags of the routes, in the order of the document, and what they hold."""


def document(routes: Sequence[Route], version: str) -> Json:
    """The OpenAPI 3.1 description of `routes`."""
    paths: Json = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    described: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "AI Chat Platform",
            "version": version,
            "description": "Every user has a personal agent with long-term memory.",
            "contact": {"name": "The operator of this server"},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": TAGS[name]} for name in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "examples": {
                code.value: _example(code) for code in sorted({code for route in routes for code in _codes(route)})
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
            },
        },
        "x-error-codes": {
            code.value: {"status": rule.status, "retryable": rule.retryable, "meaning": rule.sentence}
            for code, rule in ERRORS.items()
        },
        "x-close-codes": [
            {"code": close.code, "reason": close.reason, "reconnect": close.reconnect, "meaning": close.meaning}
            for close in CLOSE_CODES
        ],
    }
    _drop_foreign_words(described)
    return described


def _drop_foreign_words(value: Any) -> None:
    """Pydantic writes constraints of dates and decimals that JSON Schema does not know under their own names."""
    if isinstance(value, dict):
        if "type" in value:
            for name in _FOREIGN & value.keys():
                del value[name]
        for inner in value.values():
            _drop_foreign_words(inner)
    elif isinstance(value, list):
        for inner in value:
            _drop_foreign_words(inner)


def _operation(route: Route) -> Json:
    operation: Json = {
        "operationId": f"{route.tag}_{route.handler.__name__}",
        "tags": [route.tag],
        "summary": route.summary,
        "description": " ".join((route.handler.__doc__ or f"{route.summary}.").split()),
        "x-access": route.access,
        "security": _security(route),
        "parameters": _parameters(route),
        "responses": {str(status): _response(reply) for status, reply in route.replies.items()} | _problems(route),
    }
    if route.body is not None:
        required = any(field.is_required() for field in route.body.model_fields.values())
        content = {"application/json": {**_schema_of(route.body), "example": REQUESTS[route.body]}}
        operation["requestBody"] = {"required": required, "content": content}
    return operation


def _security(route: Route) -> list[Json]:
    if route.access == "public":
        return []
    match route.credential:
        case "header":
            return [{"bearer": []}]
        case "ticket":
            return [{"bearer": []}, {"ticket": []}]
        case "socket":
            return [{"bearer": []}, {"ticket": []}, {}]


def _parameters(route: Route) -> list[Json]:
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(kind)}
        for name, kind in route.path_parameters.items()
    ]
    if route.query is not None:
        schema = route.query.model_json_schema()
        for name, field in schema["properties"].items():
            parameters.append(
                {"name": name, "in": "query", "required": name in schema.get("required", ()), **_split(field)}
            )
    parameters += [
        {"name": name, "in": "header", "description": meaning, "schema": {"type": "string"}}
        for name, meaning in route.headers.items()
    ]
    return parameters


def _path_schema(kind: Any) -> Json:
    return {"type": "string", "format": "uuid"} if kind is UUID else {"type": "string"}


def _split(field: Json) -> Json:
    """A field's schema as that of a parameter: the description beside the schema, and `required` instead of null."""
    schema = {name: value for name, value in field.items() if name not in ("description", "title", "default")}
    options = [option for option in schema.pop("anyOf", []) if option != {"type": "null"}]
    parameter: Json = {"schema": {**schema, **(options[0] if options else {})}}
    if field.get("default") is not None:
        parameter["schema"]["default"] = field["default"]
    if "description" in field:
        parameter["description"] = field["description"]
    return parameter


def _response(reply: Reply) -> Json:
    content: Json = {}
    if reply.model is not None:
        content["application/json"] = {**_schema_of(reply.model), "example": RESPONSES[reply.model]}
    if reply.stream:
        content[_EVENTS] = _SERVER_SENT_EVENT
    if reply.media is not None:
        content[reply.media] = _MEDIA.get(reply.media, {"schema": {"type": "string"}})
    return {"description": reply.description} | ({"content": content} if content else {})


def _problems(route: Route) -> Json:
    """One response per status, described by its error codes."""
    by_status = groupby(sorted(_codes(route), key=_status), key=_status)
    return {str(status): _refusals(sorted(group)) for status, group in by_status}


def _codes(route: Route) -> set[ErrorCode]:
    codes = {*route.errors, ErrorCode.INTERNAL_ERROR}
    if route.access != "public":
        codes.update(_SIGNED_IN)
    if route.query is not None:
        codes.update(_PARSING)
    if route.body is not None:
        codes.update(_BODY)
    return codes


def _refusals(codes: Sequence[ErrorCode]) -> Json:
    """The response of one status, with an example of each of its codes."""
    examples = {code.value: {"$ref": f"#/components/examples/{code.value}"} for code in codes}
    return {
        "description": ", ".join(codes),
        "content": {PROBLEM_TYPE: {**_schema_of(Problem), "examples": examples}},
    }


def _example(code: ErrorCode) -> Json:
    """The example of an error, as the server would write it."""
    at_fault = (FieldError("/content", "Field required."),) if code is ErrorCode.INVALID_REQUEST else ()
    error = PlatformError(code, errors=at_fault)
    return {"summary": error.rule.title, "value": problem_members(error, _REQUEST_ID, error.rule.status)}


def _status(code: ErrorCode) -> int:
    return ERRORS[code].status


def _schema_of(model: type[BaseModel]) -> Json:
    return {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}


def _schemas(routes: Iterable[Route]) -> Json:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Problem, "serialization")]
    for route in routes:
        wanted += [(reply.model, "serialization") for reply in route.replies.values() if reply.model is not None]
        if any(reply.stream for reply in route.replies.values()):
            wanted.append((StreamedEvent, "serialization"))
        if route.body is not None:
            wanted.append((route.body, "validation"))
    unique = list(dict.fromkeys(wanted))
    _, definitions = models_json_schema(unique, ref_template=_REFERENCE)
    schemas: Json = definitions["$defs"]
    for name in schemas.keys() - {model.__name__ for model, mode in unique if mode == "validation"}:
        schemas[name].pop("additionalProperties", None)  # fields may be added to responses
    for model, mode in unique:
        if mode == "validation":
            without_null_defaults(schemas[model.__name__])
    return schemas


def without_null_defaults(schema: Json) -> None:
    """Of what is sent to the server: a field may be left out, and generated clients need not fill in a null."""
    for field in schema.get("properties", {}).values():
        if field.get("default", ...) is None:
            del field["default"]
