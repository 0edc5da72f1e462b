"""Bytes that no client library sends: damaged requests, two requests that look like one, broken WebSocket frames."""

import asyncio
import base64
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from server.api.router import ROUTES
from tests.fuzz.rest import ENDINGS
from tests.fuzz.server import Identity, Target
from tests.fuzz.target import Tally

END_SECONDS: Final = 90.0
"""The server's deadline of a request's header is 30 s; the rest is for a busy machine."""
QUIET_SECONDS: Final = 0.5
"""A client that gets nothing for so long leaves."""
FRAME_SECONDS: Final = 2.0
AT_ONCE: Final = 20
DAMAGED: Final = tuple(
    one for one in ROUTES if one.credential != "socket" and f"{one.method} {one.path}" not in ENDINGS
)
_STATUS = re.compile(rb"(?:^|\n)HTTP/1\.[01] (\d\d\d) ")
_SEEN: Final = "/hidden-in-the-body"
SMUGGLED: Final = f"GET {_SEEN} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
LENGTH: Final = str(len(SMUGGLED)).encode()


@dataclass(frozen=True, slots=True)
class Shape:
    """Headers of a POST whose end two servers could see at different places. `body` follows them."""

    headers: bytes
    body: bytes = b"0\r\n\r\n" + SMUGGLED


AMBIGUOUS: Final = (
    Shape(b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    Shape(b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
    Shape(b"Content-Length: 0\r\nContent-Length: " + LENGTH, SMUGGLED),
    Shape(b"Content-Length: 0, " + LENGTH, SMUGGLED),
    Shape(b"Content-Length: +" + LENGTH, SMUGGLED),
    Shape(b"Content-Length: -1", SMUGGLED),
    Shape(b"Content-Length: 0x10", SMUGGLED),
    Shape(b"Content-Length: 1_0", SMUGGLED),
    Shape(b"Content-Length : " + LENGTH, SMUGGLED),
    Shape(b"Content-Length: " + LENGTH + b"\0", SMUGGLED),
    Shape(b"Content-Length:\x0b" + LENGTH, SMUGGLED),
    Shape(b"Transfer-Encoding: xchunked"),
    Shape(b"Transfer-Encoding: chunked, identity"),
    Shape(b"Transfer-Encoding: identity, chunked, chunked"),
    Shape(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    Shape(b"Transfer-Encoding:\x0bchunked"),
    Shape(b"Transfer-Encoding : chunked"),
    Shape(b"Transfer-Encoding: chunked", b"0x0\r\n\r\n" + SMUGGLED),
    Shape(b"Transfer-Encoding: chunked", b"-1\r\n\r\n" + SMUGGLED),
    Shape(b"Transfer-Encoding: chunked", b"1_0\r\n\r\n" + SMUGGLED),
    Shape(b"Transfer-Encoding: chunked", b"0;\n\r\n" + SMUGGLED),
    Shape(b"Transfer-Encoding: chunked", b"ffffffffffffffffff\r\n" + SMUGGLED),
    Shape(b"Transfer-Encoding: chunked", b"2\r\nabc\r\n0\r\n\r\n" + SMUGGLED),
    Shape(b"X: y\r\n Content-Length: 5", SMUGGLED),
    Shape(b"X: y\rContent-Length: 5", SMUGGLED),
)
"""Each must be refused, and the connection closed, so that the hidden request is never answered."""


def head(method: str, path: str, who: Identity, *headers: bytes) -> bytes:
    """A request's line and headers, complete."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: 127.0.0.1", *headers]
    if who.token:
        lines.append(f"Authorization: Bearer {who.token}".encode())
    return b"\r\n".join(lines) + b"\r\n\r\n"


def frame(
    opcode: int, payload: bytes, *, flags: int = 0x80, is_masked: bool = True, length: bytes | None = None
) -> bytes:
    """A WebSocket frame. `flags`: FIN and the reserved bits; `length`: another one than the payload's."""
    size = len(payload)
    if length is None:
        length = (
            bytes([size])
            if size < 126
            else bytes([126]) + size.to_bytes(2)
            if size < 65536
            else bytes([127]) + size.to_bytes(8)
        )
    first = bytes([length[0] | (0x80 if is_masked else 0)])
    return bytes([flags | opcode]) + first + length[1:] + (bytes(4) if is_masked else b"") + payload


PING: Final = frame(0x1, b'{"type":"ping","id":"the-last"}')
_FrameMaker = Callable[[random.Random], bytes]
BROKEN: Final[dict[str, _FrameMaker]] = {
    "unmasked": lambda r: frame(0x1, b'{"type":"ping"}', is_masked=False),
    "long control frame": lambda r: frame(r.choice((8, 9, 10)), bytes(r.randint(126, 70_000))),
    "control frame in pieces": lambda r: frame(r.choice((8, 9, 10)), b"ab", flags=0),
    "close code": lambda r: frame(
        8, r.choice((0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)).to_bytes(2)
    ),
    "half a close code": lambda r: frame(8, b"\x03"),
    "close reason": lambda r: frame(8, (1000).to_bytes(2) + b"\xff\xfe"),
    "text that is not UTF-8": lambda r: frame(1, b'{"type":"\xc0\xaf"}'),
    "UTF-8 cut across pieces": lambda r: frame(1, b'{"type":"\xe2\x82', flags=0) + frame(0, b'\xff"}'),
    "reserved bits": lambda r: frame(1, b"{}", flags=0x80 | r.choice((0x10, 0x20, 0x30, 0x40))),
    "reserved opcode": lambda r: frame(r.choice((3, 4, 5, 6, 7, 11, 12, 13, 14, 15)), b"x"),
    "continuation of nothing": lambda r: frame(0, b"x"),
    "message inside a message": lambda r: frame(1, b"{", flags=0) + frame(1, b"{}"),
    "length beyond 63 bits": lambda r: frame(1, b"", length=bytes([127]) + b"\xff" * 8),
    "huge length": lambda r: frame(1, b"x", length=bytes([127]) + (2**40).to_bytes(8)),
    "length in too many bytes": lambda r: frame(1, b"{}", length=bytes([126, 0, 2])),
    "empty pieces without end": lambda r: frame(1, b"", flags=0) + frame(0, b"", flags=0) * r.randint(1, 3_000),
    "flood of pings": lambda r: frame(9, b"x") * r.randint(100, 3_000),
    "flood of pongs": lambda r: frame(10, b"x") * r.randint(100, 3_000),
    "noise": lambda r: r.randbytes(r.randint(1, 400)),
    "half a frame": lambda r: frame(1, b"x" * 300)[: r.randint(1, 300)],
}
"""What follows a good handshake. The server closes, answers, or waits for more; it never fails."""


class Sockets:
    """Opens connections to the target and writes bytes. `seed` decides everything."""

    def __init__(self, target: Target, tally: Tally, seed: int) -> None:
        self._target = target
        self._tally = tally
        self._random = random.Random(seed)

    async def run(self, inputs: int) -> None:
        """Send about so many inputs: nine of ten are damaged requests, which are cheap."""
        until = self._tally.inputs["damaged requests"] + inputs * 9 // 10
        while self._tally.inputs["damaged requests"] < until:
            async with asyncio.TaskGroup() as clients:
                for _ in range(AT_ONCE):
                    who, sent = self._damaged()
                    clients.create_task(self._send_damaged(who, sent))
        for _ in range(max(1, inputs // 10 // (len(AMBIGUOUS) + 2 * len(BROKEN)))):
            for shape in AMBIGUOUS:
                await self._ambiguous(shape)
            for name, make in BROKEN.items():
                for who in self._random.sample(self._target.identities, 2):
                    await self._broken_frame(name, make(self._random), who)
        await self._slowly()

    def _damaged(self) -> tuple[Identity, bytes]:
        """Requests of all routes with random changes of bytes, up to ten for one connection."""
        who, sent = self._random.choice(self._target.identities), bytearray()
        for _ in range(self._random.randint(1, 10)):
            sent += self._damage(self._request(who))
            self._tally.inputs["damaged requests"] += 1
        return who, bytes(sent)

    async def _send_damaged(self, who: Identity, sent: bytes) -> None:
        self._judge(who, "a damaged request", await self._exchange(sent, quiet=QUIET_SECONDS))

    def _request(self, who: Identity) -> bytes:
        route = self._random.choice(DAMAGED)
        path = route.path.replace("{turn_id}", self._target.victim_turn)
        path = re.sub(r"{\w*id}", "00000000-0000-4000-8000-000000000001", path).replace("{label}", "human")
        if self._random.random() < 0.5:
            names = ["unknown"] if route.query is None else route.query.model_fields
            path += "?" + "&".join(f"{name}={self._random.randint(-9, 99)}" for name in names)
        body = self._random.choice((b"", b"{}", b'{"content":"x","stream":false}', b'{"email":"a@b","password":"x"}'))
        return (
            head(route.method, path, who, b"Content-Type: application/json", b"Content-Length: %d" % len(body)) + body
        )

    def _damage(self, request: bytes) -> bytes:
        damaged = bytearray(request)
        for _ in range(self._random.choice((0, 1, 1, 2, 4, 8))):
            at = self._random.randrange(len(damaged))
            match self._random.randrange(4):
                case 0:
                    damaged[at] = self._random.randrange(256)
                case 1:
                    damaged[at:at] = self._random.choice(
                        (b"\r\n", b"\0", b"\n", b" ", b":", b"\xff", b"%", b"../", b"{")
                    )
                case 2:
                    del damaged[at : at + self._random.randint(1, 8)]
                case _:
                    damaged[at:at] = damaged[at : at + self._random.randint(1, 20)]
        return bytes(damaged)

    async def _ambiguous(self, shape: Shape) -> None:
        """The hidden request is not answered."""
        self._tally.inputs["ambiguous requests"] += 1
        who = self._target.identities[0]
        headers = (b"Content-Type: application/json", *shape.headers.split(b"\r\n"))
        answer = await self._exchange(head("POST", "/api/v1/auth/refresh", who, *headers) + shape.body)
        self._judge(who, "an ambiguous request", answer)
        statuses = _STATUS.findall(answer)
        if len(statuses) != 1 or statuses[0] != b"400":
            self._tally.wrong(f"an ambiguous request was not refused: {shape.headers!r}", f"{shape.body!r} {answer!r}")

    async def _broken_frame(self, name: str, sent: bytes, who: Identity) -> None:
        self._tally.inputs["broken frames"] += 1
        key = base64.b64encode(self._random.randbytes(16))
        upgrade = (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13")
        handshake = head("GET", "/api/v1/chat/stream", who, *upgrade, b"Sec-WebSocket-Key: " + key)
        answer = await self._exchange(handshake + sent + PING, b'"the-last"', FRAME_SECONDS)
        self._judge(who, f"a socket with: {name}", answer)

    async def _slowly(self) -> None:
        """Many clients that stop in the middle of a request do not delay another one: it is answered while they are
        connected, before the server's deadline."""
        who = self._target.identities[1]
        stopped = [await asyncio.open_connection("127.0.0.1", self._target.port) for _ in range(100)]
        for _, writer in stopped:
            whole = head("POST", "/api/v1/auth/login", who, b"Content-Length: 100") + b'{"email":'
            writer.write(whole[: self._random.randint(1, len(whole))])
            self._tally.inputs["slow requests"] += 1
        answer = await self._exchange(head("GET", "/api/v1/auth/me", who, b"Connection: close"))
        if b"HTTP/1.1 200" not in answer or any(reader.at_eof() for reader, _ in stopped):
            self._tally.wrong("slow clients delay another one", repr(answer))
        for _, writer in stopped:
            writer.transport.abort()

    def _judge(self, who: Identity, place: str, answer: bytes) -> None:
        for status in _STATUS.findall(answer):
            self._tally.answers[int(status)] += 1
            if status >= b"500":
                self._tally.wrong(f"{status.decode()} for {place}", repr(answer))
        self._tally.look(self._target, who, place, answer.decode(errors="replace"))

    async def _exchange(self, sent: bytes, until: bytes | None = None, quiet: float | None = None) -> bytes:
        """Send, and read to the end of the connection, or to `until`, or until nothing comes for `quiet` seconds."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target.port)
        answer = bytearray()
        try:
            writer.write(sent)
            while until is None or until not in answer:
                async with asyncio.timeout(quiet or END_SECONDS):
                    received = await reader.read(65536)
                if not received:
                    break
                answer += received
        except ConnectionError:
            self._tally.closes["aborted"] += 1
        except TimeoutError:
            if quiet is None:
                self._tally.wrong("a connection was not closed", repr(sent))
        finally:
            writer.transport.abort()
        return bytes(answer)
