"""The export of a user's data as a response, for the user and for operators."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

import structlog
from aiohttp import web

from server.accounts.export import in_large_pieces
from server.http.app_keys import RUNNING_EXPORTS
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

_HEADERS: Final = {"Content-Disposition": 'attachment; filename="chat-export.json"', "Cache-Control": "no-store"}
_SECONDS: Final = 600.0
"""The longest time of an export, so that a client that reads nothing does not hold it open."""


async def send_export(request: web.Request, user_id: str, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """Send the document of this user, one at a time for each. If it fails in the middle, the connection breaks.

    Raises PlatformError before the response begins."""
    response = web.StreamResponse(headers=_HEADERS)
    response.content_type = "application/json"
    with request.app[RUNNING_EXPORTS].one(user_id):
        async with aclosing(in_large_pieces(pieces)) as document:
            first = await anext(document)
            await response.prepare(request)
            try:
                async with asyncio.timeout(_SECONDS):
                    await response.write(first)
                    async for piece in document:
                        await response.write(piece)
                    await response.write_eof()
            except (PlatformError, TimeoutError) as error:
                log.warning("export.broken_off", user_id=user_id, reason=str(error) or type(error).__name__)
                if request.transport is not None:
                    request.transport.abort()
    return response
