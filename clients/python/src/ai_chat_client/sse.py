"""The link for networks that block WebSockets: an event stream down, REST requests up."""

import asyncio
import codecs
import json
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

import httpx

from ai_chat_client.commands import Answered, answer_over_rest
from ai_chat_client.errors import ChatError, network_error
from ai_chat_client.link import NO_CODE, LinkEnd, LinkHandlers, LinkRequest
from ai_chat_client.rest import Rest, error_of
from ai_chat_client.wire import Command

CODES = {"token_expired": 4001, "unavailable": 1013, "too_many_connections": 4004, "slow_consumer": 4000}
"""Close codes of the reasons that the last event of a stream may have; others reconnect at once."""
RECONNECT = 1012
REFUSED = 4500


class StreamLink:
    def __init__(self, rest: Rest, request: LinkRequest, handlers: LinkHandlers) -> None:
        self._rest, self._request, self._handlers = rest, request, handlers
        self._commands: asyncio.Queue[Answered] = asyncio.Queue()

    async def run(self) -> LinkEnd:
        commands = asyncio.create_task(self._carry_out())
        try:
            return await self._read()
        except httpx.HTTPError:
            return LinkEnd(NO_CODE, network_error())
        finally:
            commands.cancel()
            await asyncio.gather(commands, return_exceptions=True)

    async def _read(self) -> LinkEnd:
        request = self._rest.http.stream(
            "GET",
            f"{self._request.api}/chat/events",
            params={"after": self._request.cursor} if self._request.cursor else {},
            headers={"Authorization": f"Bearer {self._request.token}", "Accept": "text/event-stream"},
            timeout=httpx.Timeout(None, connect=10),
        )
        async with request as answer:
            if not answer.is_success:
                await answer.aread()
                error = error_of(answer)
                return LinkEnd(close_code_of(error), error)
            async for data in events(answer.aiter_bytes(), self._handlers.alive):
                frame: Any = json.loads(data)
                if frame["type"] == "reconnect":
                    return LinkEnd(CODES.get(frame["reason"], RECONNECT) if frame["reconnect"] else REFUSED)
                self._handlers.frame(frame)
        return LinkEnd(NO_CODE)

    async def _carry_out(self) -> None:
        """One after another, so that messages keep their order."""
        while True:
            for frame in await answer_over_rest(self._rest, await self._commands.get()):
                self._handlers.frame(frame)

    def send(self, command: Command) -> None:
        if command["type"] != "auth" and command["type"] != "ping":
            self._commands.put_nowait(command)

    def renew(self, token: str) -> None:
        """The server ends the stream when its token expires; the next one has a fresh token."""

    def probe(self) -> None:
        """The server writes a comment every 25 s."""


def close_code_of(error: ChatError) -> int:
    """The close code that stands for an error of an HTTP answer, so that both kinds of links end alike."""
    match error.code:
        case "token_expired":
            return 4001
        case "rate_limited":
            return 4004
        case "unauthorized" | "not_signed_in":
            return 4500
        case "account_blocked":
            return 4503
        case "network":
            return NO_CODE
        case _:
            return 1013 if error.retryable else 4501


async def events(body: AsyncIterable[bytes], alive: Callable[[], None] = lambda: None) -> AsyncIterator[str]:
    """The data of each event. Any bytes are reported as a sign of life.

    Lines end at line feeds alone: the separators of Unicode, at which `str.splitlines` cuts, may be in a text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    rest = ""
    data: list[str] = []
    async for chunk in body:
        alive()
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in (line.removesuffix("\r") for line in lines):
            if line.startswith("data:"):
                data.append(line.removeprefix("data:").removeprefix(" "))
            elif not line and data:
                yield "\n".join(data)
                data = []
