"""Successful responses as JSON, encoded by orjson."""

from collections.abc import Mapping

import orjson
from aiohttp import web

from server.protocol.shapes import Json


def to_json(value: Json) -> bytes:
    return orjson.dumps(value)


def json_response(value: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`value` as JSON, with `Cache-Control: no-store`, since it may hold a user's data."""
    return web.Response(
        body=to_json(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
