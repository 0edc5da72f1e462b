"""A WebSocket client at the level of bytes: it sends and leaves unread what a client library does not let it."""

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from tests.unit.streaming.server_fixture import StreamingServer


def client_frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A frame as it is on the wire, under a mask that changes nothing."""
    length = len(payload)
    head = bytes(((0x80 if final else 0) | opcode, 0x80 | (length if length < 126 else 126 if length < 65536 else 127)))
    return head + (b"" if length < 126 else length.to_bytes(2 if length < 65536 else 8)) + bytes(4) + payload


class RawSocket:
    """Sends and reads frames as they are on the wire; reads only what a test asks for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def open(
        cls, server: StreamingServer, user_id: str, *, receive_buffer: int | None = None
    ) -> AsyncIterator[Self]:
        """A socket of this user that has read its `ready` frame. `receive_buffer` in bytes."""
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        )
        async with cls._answered(server, user_id, request, receive_buffer) as raw:
            await raw.frame()
            yield raw

    @classmethod
    @asynccontextmanager
    async def handshake(
        cls, server: StreamingServer, protocols: str | None = None, behind: bytes = b""
    ) -> AsyncIterator[Self]:
        """An unauthenticated socket. `protocols`: Sec-WebSocket-Protocol; `behind`: bytes sent with the request."""
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        )
        if protocols is not None:
            request += f"Sec-WebSocket-Protocol: {protocols}\r\n"
        async with cls._connected(server, None) as (reader, writer):
            writer.write(f"{request}\r\n".encode() + behind)
            await reader.readuntil(b"\r\n\r\n")
            yield cls(reader, writer)

    @classmethod
    @asynccontextmanager
    async def events(cls, server: StreamingServer, user_id: str, *, receive_buffer: int) -> AsyncIterator[Self]:
        """An event stream of this user whose events are not read."""
        request = "GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        async with cls._answered(server, user_id, request, receive_buffer) as raw:
            yield raw

    @classmethod
    @asynccontextmanager
    async def _answered(
        cls, server: StreamingServer, user_id: str, request: str, receive_buffer: int | None
    ) -> AsyncIterator[Self]:
        async with cls._connected(server, receive_buffer) as (reader, writer):
            writer.write(f"{request}Authorization: Bearer {server.token(user_id)}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            yield cls(reader, writer)

    @classmethod
    @asynccontextmanager
    async def _connected(
        cls, server: StreamingServer, receive_buffer: int | None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        plain.setblocking(False)
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", server.port))
        reader, writer = await asyncio.open_connection(sock=plain, limit=4096)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def send(self, opcode: int, payload: bytes, *, final: bool = True) -> None:
        """A frame, masked as a client's must be."""
        self.write(client_frame(opcode, payload, final=final))

    @property
    def unsent(self) -> int:
        """Bytes that the kernel does not accept, since the server does not read."""
        return self._writer.transport.get_write_buffer_size()

    async def read(self, size: int) -> bytes:
        """The next `size` bytes."""
        return await self._reader.readexactly(size)

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload. Raises asyncio.IncompleteReadError at the end of the connection."""
        first, length = await self._reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await self._reader.readexactly(2))
        elif length == 127:
            length = int.from_bytes(await self._reader.readexactly(8))
        return first & 0x0F, await self._reader.readexactly(length)

    async def close_code(self) -> int | None:
        """Read to the end. The code of the close frame; None where the connection just ended."""
        try:
            while True:
                opcode, payload = await self.frame()
                if opcode == 0x8:
                    return int.from_bytes(payload[:2])
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def gone(self) -> None:
        """Return when the server has ended the connection, which a write detects."""
        while not self._writer.transport.is_closing():
            self.write(b"x")
            await asyncio.sleep(0.01)

    def abort(self) -> None:
        self._writer.transport.abort()
