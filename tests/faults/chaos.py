"""A TCP proxy on loopback that simulates bad networks. It works on bytes and connections, without any protocol.

    async with ChaosProxy(server.port) as proxy:
        … a client connects to proxy.url …
        proxy.link_of(port).down.set(STALLED)   # one direction of one connection
        proxy.set(NORMAL)                   # every connection, also those to come

Bytes that are not forwarded are not read either, so that the sender's buffers fill up.
"""

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Final, Literal, Self

LOOPBACK: Final = "127.0.0.1"
_LINGER_RESET: Final = struct.pack("ii", 1, 0)  # close() then sends RST and discards unsent bytes


@dataclass(frozen=True, slots=True)
class Conditions:
    """How one direction forwards its bytes. Times in seconds, sizes in bytes."""

    delay: float = 0.0
    """The delay of each piece."""
    piece: int = 64 * 1024
    """The largest piece that is forwarded at once."""
    pause: float = 0.0
    """The wait after each piece."""
    stalled: bool = False
    """Nothing is forwarded, not even the end of the connection. Bytes on their way follow after the stall."""
    dropped: bool = False
    """Everything is received and discarded, the end of the connection too: the other side seems connected and
    silent."""
    reset_after: int | None = None
    """After this many more bytes the connection is reset on both sides."""


NORMAL: Final = Conditions()
STALLED: Final = Conditions(stalled=True)
DROPPED: Final = Conditions(dropped=True)
BYTE_BY_BYTE: Final = Conditions(piece=1)


def at_rate(bytes_a_second: int) -> Conditions:
    """A throttled connection."""
    return Conditions(piece=max(1, bytes_a_second // 10), pause=0.1)


class Direction:
    """One direction of a link."""

    def __init__(self, link: "Link", source: socket.socket, sink: socket.socket, conditions: Conditions) -> None:
        self.conditions = conditions
        self.forwarded = 0
        self.dropped = 0
        self._link = link
        self._source = source
        self._sink = sink
        self._until_reset = conditions.reset_after
        self._changed = asyncio.Event()

    def set(self, conditions: Conditions) -> None:
        """Apply these conditions from now on; bytes until a reset are counted from now, too."""
        self.conditions = conditions
        self._until_reset = conditions.reset_after
        self._changed.set()

    async def forward(self) -> None:
        """Forward bytes until the source ends or breaks, and forward that as well."""
        try:
            while data := await self._receive():
                await self._send(data)
            await self._while_withheld()
            self._sink.shutdown(socket.SHUT_WR)
        except OSError:
            await self._while_withheld()
            self._link.reset()

    async def _receive(self) -> bytes:
        await self._while_stalled()
        return await asyncio.get_running_loop().sock_recv(self._source, self.conditions.piece)

    async def _send(self, data: bytes) -> None:
        while data:
            if self.conditions.delay:
                await asyncio.sleep(self.conditions.delay)
            await self._while_stalled()
            piece, data = data[: self._size()], data[self._size() :]
            if self.conditions.dropped:
                self.dropped += len(piece)
            else:
                await asyncio.get_running_loop().sock_sendall(self._sink, piece)
                await self._count(len(piece))
                await asyncio.sleep(self.conditions.pause)

    def _size(self) -> int:
        return self.conditions.piece if self._until_reset is None else min(self.conditions.piece, self._until_reset)

    async def _count(self, size: int) -> None:
        self.forwarded += size
        if self._until_reset is not None:
            self._until_reset -= size
            if self._until_reset == 0:
                self._link.reset()
                await asyncio.Event().wait()  # for the link to end this

    async def _while_stalled(self) -> None:
        while self.conditions.stalled:
            await self._change()

    async def _while_withheld(self) -> None:
        while self.conditions.stalled or self.conditions.dropped:
            await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class Link:
    """One connection of a client with its connection to the target. `up` is towards the target, `down` back."""

    def __init__(self, client: socket.socket, target: socket.socket, up: Conditions, down: Conditions) -> None:
        self._sockets = (client, target)
        self._ending: Literal["cut", "reset"] = "cut"
        self._end = asyncio.Event()
        self.client_port = int(client.getpeername()[1])
        self.up = Direction(self, client, target, up)
        self.down = Direction(self, target, client, down)

    def set(self, conditions: Conditions) -> None:
        """The same in both directions."""
        self.up.set(conditions)
        self.down.set(conditions)

    def reset(self) -> None:
        """Reset it: both sides receive RST, bytes on their way are lost."""
        self._ending = "reset"
        self._end.set()

    def cut(self) -> None:
        """End it: both sides receive FIN, even in the middle of a frame."""
        self._end.set()

    async def run(self) -> None:
        """Forward bytes until both directions have ended or the link is cut or reset."""
        forwarding = asyncio.gather(self.up.forward(), self.down.forward())
        forwarding.add_done_callback(lambda _: self._end.set())
        try:
            await self._end.wait()
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)
            self.close()

    def close(self) -> None:
        """Close both sockets, by FIN or RST. No task may use them any more."""
        for end in self._sockets:
            if self._ending == "reset":
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            end.close()


class ChaosProxy:
    """Listens on `port` for the target's clients. At the end of its block every link is reset.

    `receive_buffer`, in bytes, limits what the kernel buffers from the target for a link whose client does not read.
    """

    def __init__(self, target_port: int, *, receive_buffer: int | None = None) -> None:
        self.links: list[Link] = []
        """The open links, in the order of their connections."""
        self.resets_newcomers = False
        """Whether a connection is reset as soon as it is accepted."""
        self._target = (LOOPBACK, target_port)
        self._receive_buffer = receive_buffer
        self._up = self._down = NORMAL
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        # Bound but not listening, it reserves the port while connections are refused.
        self._keeper = socket.socket()
        self._keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._keeper.bind((LOOPBACK, 0))
        self.port = int(self._keeper.getsockname()[1])
        self.url = f"http://{LOOPBACK}:{self.port}"

    async def __aenter__(self) -> Self:
        self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        for link in self.links:
            link.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._keeper.close()

    def set(self, conditions: Conditions | None = None, *, up: Conditions = NORMAL, down: Conditions = NORMAL) -> None:
        """Set the conditions of both directions, or of each, for every open and later link."""
        self._up, self._down = (conditions, conditions) if conditions is not None else (up, down)
        for link in self.links:
            link.up.set(self._up)
            link.down.set(self._down)

    def link_of(self, client_port: int) -> Link:
        """The open link of the client that connected from this port."""
        return next(link for link in self.links if link.client_port == client_port)

    def listen(self) -> None:
        """Accept connections again."""
        listener = socket.create_server((LOOPBACK, self.port), backlog=2048)
        listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(listener))

    async def refuse(self) -> None:
        """Refuse new connections until `listen`. Those that are open stay."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                client, _ = await asyncio.get_running_loop().sock_accept(listener)
                task = asyncio.create_task(self._serve(client))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        target = socket.socket()
        target.setblocking(False)
        if self._receive_buffer is not None:
            target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        link = Link(client, target, self._up, self._down)
        self.links.append(link)
        try:
            for end in (client, target):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self.resets_newcomers and await self._reach(target):
                await link.run()
            else:
                link.reset()
                link.close()
        finally:
            self.links.remove(link)

    async def _reach(self, target: socket.socket) -> bool:
        try:
            await asyncio.get_running_loop().sock_connect(target, self._target)
        except OSError:
            return False
        return True
