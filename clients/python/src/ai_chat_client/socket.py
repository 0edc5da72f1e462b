"""The WebSocket link. The token goes into the first frame, so that every refusal has a close code."""

import asyncio
import json
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from ai_chat_client.commands import encoded
from ai_chat_client.errors import ChatError, chat_error
from ai_chat_client.link import NO_CODE, LinkEnd, LinkHandlers, LinkRequest
from ai_chat_client.wire import Command, Frame

CLOSING = 1.0
"""Seconds for a server that does not answer a close."""


class SocketLink:
    def __init__(self, request: LinkRequest, handlers: LinkHandlers) -> None:
        after = f"?after={quote(request.cursor)}" if request.cursor else ""
        self._url = f"ws{request.api.removeprefix('http')}/chat/stream{after}"
        self._handlers = handlers
        self._outgoing: asyncio.Queue[Command] = asyncio.Queue()
        self._error: ChatError | None = None
        self.send({"type": "auth", "token": request.token})

    async def run(self) -> LinkEnd:
        try:
            # Connection finds dead servers for both kinds of links, so the library sends no pings of its own.
            async with connect(self._url, ping_interval=None, close_timeout=CLOSING, max_size=None) as socket:
                code = await self._serve(socket)
        except (OSError, TimeoutError, WebSocketException):
            return LinkEnd(NO_CODE, self._error)
        return LinkEnd(code, self._error)

    async def _serve(self, socket: ClientConnection) -> int:
        """Returns the close code."""
        writer = asyncio.create_task(self._write(socket))
        try:
            async for data in socket:
                frame: Frame = json.loads(data)
                if frame["type"] == "error" and frame.get("id") is None:
                    self._error = chat_error(frame)
                self._handlers.frame(frame)
        except ConnectionClosed:
            pass
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return socket.close_code or NO_CODE

    async def _write(self, socket: ClientConnection) -> None:
        """Ends with the connection, which the reader reports."""
        while True:
            await socket.send(encoded(await self._outgoing.get()))

    def send(self, command: Command) -> None:
        self._outgoing.put_nowait(command)

    def renew(self, token: str) -> None:
        self.send({"type": "auth", "token": token})

    def probe(self) -> None:
        self.send({"type": "ping"})
