"""A transport on which a request that was begun is carried to its end, whoever has stopped waiting for it.

httpcore's pool loses a connection for good when a request is cancelled after it was given one and before it has begun
to connect. Requests are cancelled by their deadlines and by clients that leave, many at once in a bad moment: with its
last connection the pool lost the whole project, until the process was started again.
"""

import asyncio
from collections.abc import AsyncIterable
from typing import cast

import httpx


class CarriedTransport(httpx.AsyncBaseTransport):
    """For short answers: they are read whole. What bounds an abandoned request is the timeouts it was sent with."""

    def __init__(self, limits: httpx.Limits) -> None:
        self._carrier = httpx.AsyncHTTPTransport(limits=limits)
        self._carried: set[asyncio.Task[httpx.Response]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        carried = asyncio.create_task(self._carry(request))
        self._carried.add(carried)
        carried.add_done_callback(self._arrived)
        return await asyncio.shield(carried)

    async def aclose(self) -> None:
        for task in tuple(self._carried):
            task.cancel()
        await asyncio.gather(*self._carried, return_exceptions=True)
        await self._carrier.aclose()

    async def _carry(self, request: httpx.Request) -> httpx.Response:
        response = await self._carrier.handle_async_request(request)
        try:
            parts = [part async for part in cast("AsyncIterable[bytes]", response.stream)]
        finally:
            await response.aclose()
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=httpx.ByteStream(b"".join(parts)),
            extensions=response.extensions,
        )

    def _arrived(self, carried: "asyncio.Task[httpx.Response]") -> None:
        self._carried.discard(carried)
        if not carried.cancelled():
            carried.exception()  # whoever waited has it; perhaps nobody did to the end
