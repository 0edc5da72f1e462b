"""The OpenAPI document, generated from the served routes and the models that validate requests."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from server.api.schemas import Problem
from server.http.problems import MEDIA_TYPE as PROBLEM_TYPE
from server.http.routes import Reply, Route
from server.protocol.codes import CLOSE_CODES, ERRORS, ErrorCode
from server.protocol.shapes import Json

_REFERENCE: Final = "#/components/schemas/{model}"
_EVENTS: Final = "text/event-stream"
_MEDIA: Final[dict[str, Json]] = {
    _EVENTS: {},  # OpenAPI 3.1 has no schema for a sequence of events
    "application/json": {"schema": {"type": "object"}},
}
"""The content of replies without a model, where it is no string."""
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


def document(routes: Sequence[Route], version: str) -> Json:
    """The OpenAPI 3.1 description of `routes`."""
    paths: Json = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AI Chat Platform",
            "version": version,
            "description": "Every user has a personal agent with long-term memory.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
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


def _operation(route: Route) -> Json:
    operation: Json = {
        "operationId": f"{route.tag}_{route.handler.__name__}",
        "tags": [route.tag],
        "summary": route.summary,
        "x-access": route.access,
        "security": _security(route),
        "parameters": _parameters(route),
        "responses": {str(status): _response(reply) for status, reply in route.replies.items()} | _problems(route),
    }
    if route.handler.__doc__:
        operation["description"] = " ".join(route.handler.__doc__.split())
    if route.body is not None:
        required = any(field.is_required() for field in route.body.model_fields.values())
        operation["requestBody"] = {"required": required, "content": {"application/json": _schema_of(route.body)}}
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
    if reply.stream:
        content[_EVENTS] = _MEDIA[_EVENTS]
    if reply.model is not None:
        content["application/json"] = _schema_of(reply.model)
    if reply.media is not None:
        content[reply.media] = _MEDIA.get(reply.media, {"schema": {"type": "string"}})
    return {"description": reply.description} | ({"content": content} if content else {})


def _problems(route: Route) -> Json:
    """One response per status, described by its error codes."""
    codes = {*route.errors, ErrorCode.INTERNAL_ERROR}
    if route.access != "public":
        codes.update(_SIGNED_IN)
    if route.query is not None:
        codes.update(_PARSING)
    if route.body is not None:
        codes.update(_BODY)
    by_status = groupby(sorted(codes, key=_status), key=_status)
    return {
        str(status): {
            "description": ", ".join(sorted(group)),
            "content": {PROBLEM_TYPE: _schema_of(Problem)},
        }
        for status, group in by_status
    }


def _status(code: ErrorCode) -> int:
    return ERRORS[code].status


def _schema_of(model: type[BaseModel]) -> Json:
    return {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}


def _schemas(routes: Iterable[Route]) -> Json:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Problem, "serialization")]
    for route in routes:
        wanted += [(reply.model, "serialization") for reply in route.replies.values() if reply.model is not None]
        if route.body is not None:
            wanted.append((route.body, "validation"))
    unique = list(dict.fromkeys(wanted))
    _, definitions = models_json_schema(unique, ref_template=_REFERENCE)
    schemas: Json = definitions["$defs"]
    for name in {model.__name__ for model, mode in unique if mode == "serialization"}:
        schemas[name].pop("additionalProperties", None)  # fields may be added to responses
    return schemas
