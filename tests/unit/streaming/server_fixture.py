"""A server of WebSockets and event streams only, on the fakes, and clients that speak the protocol to it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from aiohttp import WSMsgType, web
from aiohttp.typedefs import Handler
from pydantic import SecretStr

from server.api.stream_schemas import EVENT_STREAM, SOCKET
from server.auth.authenticator import Authenticator
from server.auth.tickets import Tickets
from server.http.http_server import serving
from server.http.origins import Origins
from server.ports import Account, Principal
from server.protocol.codes import ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.sessions.maintenance import Rhythm
from server.streaming.sse import EventStreams
from server.streaming.websocket import WebSocketEndpoint
from tests.fakes.accounts import FakeAccountStore
from tests.fakes.agent import Reply
from tests.fakes.credentials import FakeCredentials
from tests.fakes.store import FakeSessionStore
from tests.unit.sessions.world import SPOKEN, World, message
from tests.virtual_time import now

Json = dict[str, Any]
_QUIET = Rhythm(heartbeat=1e6, renewal_limit=1e7, poll=1e6, scan=1e6, silence=1e6, accounts=1e6, reap=1e6)
_LIMITS = Limits()


class Verifier:
    """Accepts the tokens that `principal` has issued."""

    def __init__(self) -> None:
        self.principals: dict[str, Principal] = {}

    async def verify(self, token: str) -> Principal:
        principal = self.principals.get(token)
        if principal is None:
            raise PlatformError(ErrorCode.UNAUTHORIZED)
        if principal.expires_at <= now():
            raise PlatformError(ErrorCode.TOKEN_EXPIRED)
        return principal


class Opener:
    def __init__(self, accounts: FakeAccountStore) -> None:
        self._accounts = accounts

    async def ensure_account(self, user_id: str, email: str, name: str | None = None) -> Account:
        return await self._accounts.ensure(user_id, email, name)


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except PlatformError as error:
        return web.json_response({"code": error.code}, status=error.rule.status)


class ClosedError(Exception):
    """The server closed the socket."""

    def __init__(self, code: int | None, reason: str | None) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code} {reason}")


class Socket:
    """A client's end of a WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.raw = socket
        self.seen: list[Json] = []

    async def send(self, type_: str, **fields: Any) -> None:
        await self.raw.send_str(orjson.dumps({"type": type_, **fields}).decode())

    async def receive(self) -> Json:
        """The next frame. Raises ClosedError."""
        message = await self.raw.receive()
        while message.type in (WSMsgType.PING, WSMsgType.PONG):
            message = await self.raw.receive()
        if message.type is not WSMsgType.TEXT:
            raise ClosedError(self.raw.close_code, message.extra)
        frame: Json = orjson.loads(message.data)
        SOCKET.validate_json(message.data)
        self.seen.append(frame)
        return frame

    async def until(self, *types: str) -> Json:
        """The next frame of one of these types."""
        while (frame := await self.receive())["type"] not in types:
            pass
        return frame

    async def closed(self) -> tuple[int | None, str | None]:
        """Read to the end. The close code and its reason."""
        try:
            while True:
                await self.receive()
        except ClosedError as end:
            return end.code, end.reason

    def text(self) -> str:
        return "".join(frame["text"] for frame in self.seen if frame["type"] == "message.delta")


class Events:
    """A client's end of an event stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.seen: list[Json] = []
        self.ids: list[str | None] = []
        self.comments = 0

    async def receive(self) -> Json | None:
        """The next event; None at the end."""
        fields: dict[str, str] = {}
        while line := (await self.response.content.readline()).decode():
            if line.strip():
                name, _, value = line.rstrip("\r\n").partition(": ")
                fields[name] = value
                self.comments += not name.removesuffix(":")
            elif "data" in fields:
                event: Json = orjson.loads(fields["data"])
                EVENT_STREAM.validate_json(fields["data"])
                assert event["type"] == fields["event"]
                self.seen.append(event)
                self.ids.append(fields.get("id"))
                return event
        return None

    async def until(self, *types: str) -> Json:
        while (event := await self.receive()) is not None:
            if event["type"] in types:
                return event
        raise AssertionError(f"the stream ended without {types}: {self.types}")

    async def rest(self) -> list[Json]:
        """Read to the end of the response."""
        while await self.receive() is not None:
            pass
        return self.seen

    @property
    def types(self) -> list[str]:
        kinds = [event["type"] for event in self.seen]
        return [kind for index, kind in enumerate(kinds) if index == 0 or kind != kinds[index - 1]]

    def text(self) -> str:
        return "".join(event["text"] for event in self.seen if event["type"] == "message.delta")


class StreamingServer:
    """Use as `async with StreamingServer() as server:`."""

    def __init__(self, *, limits: Limits = _LIMITS, reply: Reply = SPOKEN) -> None:
        self.limits = limits
        self.world = World(limits=limits, rhythm=_QUIET, reply=reply)
        self.verifier = Verifier()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        world = await self._stack.enter_async_context(self.world)
        self.process = await world.process()
        store, accounts = FakeSessionStore(world.database), FakeAccountStore(world.database)
        self.credentials = FakeCredentials(world.database)
        self.tickets = Tickets(store, SecretStr("a secret that only tests use"), clock=now)
        self.authenticator = Authenticator(
            self.verifier,
            self.tickets,
            accounts,
            Opener(accounts),
            self.credentials,
            clock=asyncio.get_running_loop().time,
        )
        hub = self.process.hub
        origins = Origins(["https://chat.example"], localhost_allowed=False)
        self._sockets = WebSocketEndpoint(hub, self.authenticator, origins, self.limits, now=now)
        self._streams = EventStreams(hub, self.limits, self.tickets, now)
        app = web.Application(middlewares=[_problems])
        app.router.add_get("/stream", partial(self._sockets.handle, access="chat"))
        app.router.add_get("/events", self._events)
        app.router.add_post("/message", self._message)
        listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = listening.getsockname()[1]
        await self._stack.enter_async_context(serving(app, lambda: listening))
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{self.port}/"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        principal = await self.authenticator.header(request.headers.get("Authorization"), "chat")
        seen = request.headers.get("Last-Event-ID") or request.query.get("after")
        return await self._streams.stream_session(request, principal, EventCursor.parse(seen) if seen else None)

    async def _message(self, request: web.Request) -> web.StreamResponse:
        principal = await self.authenticator.header(request.headers.get("Authorization"), "chat")
        body = await request.json()
        new = message(principal.user_id, body["content"], body["client_message_id"])
        return await self._streams.stream_turn(request, principal, new)

    # Users and their clients

    def user(self) -> str:
        user_id = self.world.user()
        self.world.database.profile(user_id)
        return user_id

    def principal(self, user_id: str, seconds: float = 3600.0) -> Principal:
        token = f"token-{len(self.verifier.principals)}"
        principal = Principal(user_id, "a@example.com", SecretStr(token), now() + timedelta(seconds=seconds))
        self.verifier.principals[token] = principal
        return principal

    def token(self, user_id: str, seconds: float = 3600.0) -> str:
        """An access token that is valid for `seconds`."""
        token = self.principal(user_id, seconds).access_token
        assert token is not None
        return token.get_secret_value()

    def authorization(self, user_id: str, seconds: float = 3600.0) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(user_id, seconds)}"}

    @asynccontextmanager
    async def anonymous(
        self, query: dict[str, str] | None = None, headers: dict[str, str] | None = None, **options: Any
    ) -> AsyncIterator[Socket]:
        """An unauthenticated socket, but for the given query and headers. Raises aiohttp.WSServerHandshakeError."""
        options.setdefault("max_msg_size", 0)
        async with self.http.ws_connect("/stream", params=query, headers=headers, **options) as socket:
            yield Socket(socket)

    @asynccontextmanager
    async def socket(
        self, user_id: str, *, after: str | None = None, seconds: float = 3600.0, **options: Any
    ) -> AsyncIterator[Socket]:
        """A socket of this user that has read its `ready` frame."""
        query = {} if after is None else {"after": after}
        async with self.anonymous(query, self.authorization(user_id, seconds), **options) as socket:
            await socket.until("ready")
            yield socket

    @asynccontextmanager
    async def events(
        self, user_id: str, *, after: str | None = None, last_event_id: str | None = None, seconds: float = 3600.0
    ) -> AsyncIterator[Events]:
        headers = self.authorization(user_id, seconds)
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        query = {} if after is None else {"after": after}
        async with self.http.get("/events", params=query, headers=headers, timeout=_FOR_EVER) as response:
            yield Events(response)

    @asynccontextmanager
    async def post(
        self, user_id: str, content: str, message_id: str = "m1", *, seconds: float = 3600.0
    ) -> AsyncIterator[Events]:
        body = {"content": content, "client_message_id": message_id}
        headers = self.authorization(user_id, seconds)
        async with self.http.post("/message", json=body, headers=headers, timeout=_FOR_EVER) as response:
            yield Events(response)


_FOR_EVER = aiohttp.ClientTimeout(total=None, sock_connect=None)
