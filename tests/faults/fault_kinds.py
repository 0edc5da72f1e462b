"""The faults of an HTTP request on its way to a service, or of the answer on its way back."""

from dataclasses import dataclass
from typing import Final, Literal

from aiohttp import web

from tests.faults.http_faults import Exchange

VENDOR_WORDS: Final = "upstream connect error sk-vendor-secret http://10.9.8.7:4000/internal"
"""Part of every made-up answer, so that a test can detect whether it reached a user."""

GATEWAY_PAGE: Final = f"<html><body><h1>{VENDOR_WORDS}</h1></body></html>".encode()


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset without an answer. `forwarded`: after the service has processed the request."""

    forwarded: bool = False

    async def play(self, exchange: Exchange) -> web.StreamResponse:
        if self.forwarded:
            await exchange.let_the_service_answer()
        return await exchange.reset()


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer while the caller is connected. `forwarded` as above."""

    forwarded: bool = False

    async def play(self, exchange: Exchange) -> web.StreamResponse:
        if self.forwarded:
            await exchange.let_the_service_answer()
        return await exchange.silence()


@dataclass(frozen=True, slots=True)
class Answer:
    """This answer in place of the service's, which does not get the request. `retry_after` in seconds."""

    status: int
    body: bytes = GATEWAY_PAGE
    content_type: str = "text/html"
    retry_after: int | None = None

    async def play(self, _exchange: Exchange) -> web.StreamResponse:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return web.Response(status=self.status, body=self.body, content_type=self.content_type, headers=headers)


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The service's answer up to `after`, and then a fault.

    `after` is a number of bytes of the body, or a text: then up to the end of the first line that contains it. `then`
    the connection is `reset`, or in `silence` while the caller is connected, or the body `end`s as if it were complete;
    `noise` comes before that.
    """

    after: int | bytes
    then: Literal["reset", "silence", "end"]
    noise: bytes = b""

    async def play(self, exchange: Exchange) -> web.StreamResponse:
        async with exchange.forwarded() as upstream:
            response = exchange.begin(upstream, same_length=self.then != "end")
            await response.prepare(exchange.request)
            whole, sent = b"", 0
            async for data in upstream.content.iter_any():
                whole += data
                place = self._place(whole)
                await response.write(whole[sent : len(whole) if place is None else place])
                if place is not None:
                    await response.write(self.noise)
                    return await self._go_on(exchange, response)
                sent = len(whole)
            return response

    def _place(self, body: bytes) -> int | None:
        if isinstance(self.after, int):
            return self.after if len(body) >= self.after else None
        found = body.find(self.after)
        end = -1 if found < 0 else body.find(b"\n", found)
        return None if end < 0 else end + 1

    async def _go_on(self, exchange: Exchange, response: web.StreamResponse) -> web.StreamResponse:
        if self.then == "reset":
            return await exchange.reset()
        return await exchange.silence() if self.then == "silence" else response


@dataclass(slots=True)
class Overheard:
    """No fault: the service's answer is forwarded whole, and its text is stored in `text`."""

    text: str = ""

    async def play(self, exchange: Exchange) -> web.StreamResponse:
        async with exchange.forwarded() as upstream:
            body = await upstream.read()
            self.text = body.decode()
            response = exchange.begin(upstream)
            await response.prepare(exchange.request)
            await response.write(body)
            return response
