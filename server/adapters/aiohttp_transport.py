"""Sends the requests of an SDK that uses httpx with aiohttp, and distinguishes failures before and after a request was
sent.

httpx's own transport spends four times the CPU on a streamed chunk, and twice on a short call. httpx-aiohttp 0.2, which
does the same as this module, reports a connection that was closed after the request had been sent as a
`ConnectTimeout`: the message would be sent a second time. Knows HTTP and no service.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from yarl import URL

BODY: Final = "body"
"""The extension of a response with aiohttp's own reader, for reading a stream without the layers of httpx."""

BROKEN: Final = (aiohttp.ClientError, TimeoutError, OSError)
"""The errors of that reader when the connection breaks or times out."""

_UNOPENED: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_KEEPALIVE_SECONDS: Final = 4.0
"""Idle sockets are closed before uvicorn (Letta) and Node (Supabase Lite) close them after 5 s, which could break a
request that is being sent."""
_SILENCE_CHECKS: Final = 4
"""How often silence is checked for within the read timeout."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Raises httpx.ConnectError if no connection could be opened, after one retry: nothing was sent. Raises
    httpx.ReadError for every other failure: the request may have arrived.

    The retry is there because on a busy machine a few connects were seen to hang.

    `trust_env`: as httpx does, use the proxies of HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, except for hosts in NO_PROXY,
    and the certificates of SSL_CERT_FILE, else certifi's. Without it, the system's certificates.

    `total`: the seconds after which a response ends in a ReadError, even if its body is still coming. None: no limit.
    """

    def __init__(self, *, trust_env: bool = False, total: float | None = None) -> None:
        self._trust_env = trust_env
        self._total = total
        self._proxies = getproxies() if trust_env else {}
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            try:
                response = await self._send(request)
            except _UNOPENED:
                response = await self._send(request)
        except _UNOPENED as error:
            raise httpx.ConnectError(str(error), request=request) from error
        except BROKEN as error:
            raise httpx.ReadError(str(error), request=request) from error
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(response, request.extensions["timeout"]["read"]),
            request=request,
            extensions={BODY: response.content},
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _send(self, request: httpx.Request) -> aiohttp.ClientResponse:
        timeout = request.extensions["timeout"]
        async with asyncio.timeout(timeout["read"]):
            return await self._open_session().request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                data=request.content or None,
                allow_redirects=False,
                proxy=self._proxy(request.url),
                timeout=aiohttp.ClientTimeout(total=self._total, sock_connect=timeout["connect"]),
            )

    def _proxy(self, url: httpx.URL) -> str | None:
        """The proxy's address. aiohttp's own `trust_env` reads ~/.netrc too: an entry there for the host, or for all
        hosts, makes it refuse every request that has an Authorization header."""
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if not proxy or proxy_bypass(url.host):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:  # created in its event loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    keepalive_timeout=_KEEPALIVE_SECONDS,
                    ssl=httpx.create_ssl_context() if self._trust_env else True,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session


class PlainClient(httpx.AsyncClient):
    """httpx's client without what these SDKs do not use: cookies, redirects, proxies and authentication flows. They
    are half of the CPU of a short call.

    The hooks of a response are called before its body is read, as httpx does."""

    def __init__(self, transport: AiohttpTransport, **options: Any) -> None:
        super().__init__(transport=transport, trust_env=False, **options)
        self._sends = transport.handle_async_request

    async def send(
        self, request: httpx.Request, *, stream: bool = False, auth: object = None, follow_redirects: object = None
    ) -> httpx.Response:
        """See httpx. `auth` and `follow_redirects` have no effect."""
        hooks = self.event_hooks
        for hook in hooks["request"]:
            await hook(request)
        response = await self._sends(request)
        try:
            for hook in hooks["response"]:
                await hook(response)
            if not stream:
                await response.aread()
        except BaseException:
            await response.aclose()
            raise
        return response


class _Body(httpx.AsyncByteStream):
    """A response's bytes as they come. Closing it early closes the connection.

    The connection is also closed after `read_timeout` seconds of silence, at the latest a quarter of it later. Time
    that the caller spends between two reads does not count. aiohttp's own `sock_read` starts a timer at every read,
    which is a noticeable part of the CPU of a streamed chunk.
    """

    def __init__(self, response: aiohttp.ClientResponse, read_timeout: float | None) -> None:
        self._response = response
        self._read_timeout = read_timeout
        self._received = 0
        self._silent_checks = 0
        self._is_awaited = True
        self._timer: asyncio.TimerHandle | None = None
        if not response.content.is_eof():  # a short body has come together with the headers
            self._schedule_check()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._response.content.iter_any():
                self._is_awaited = False
                yield data
                self._is_awaited = True
        except BROKEN as error:
            raise httpx.ReadError(str(error)) from error

    async def aclose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._response.close()

    def _schedule_check(self) -> None:
        if self._read_timeout is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._read_timeout / _SILENCE_CHECKS, self._check_silence)

    def _check_silence(self) -> None:
        received = self._response.content.total_bytes
        is_silent = self._is_awaited and received == self._received
        self._silent_checks = self._silent_checks + 1 if is_silent else 0
        self._received = received
        if self._silent_checks < _SILENCE_CHECKS:
            self._schedule_check()
        else:
            self._response.close()
