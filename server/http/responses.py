"""Successful answers: JSON through orjson, and nothing else."""

from collections.abc import Mapping

import orjson
from aiohttp import web

from server.protocol.shapes import Json


def to_json(value: Json) -> bytes:
    return orjson.dumps(value)


def answer(value: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`value` as JSON. What a user may see is nobody else's to keep, so caches are told not to."""
    return web.Response(
        body=to_json(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
