"""A client of the platform as its users write one: REST, the WebSocket and SSE, with nothing of the server imported."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

from server.api.stream_schemas import SOCKET

Json = dict[str, Any]
TERMINAL = frozenset({"turn.completed", "turn.failed", "turn.cancelled"})
TIMEOUT = 180.0
"""Timeout of a wait in tests, in seconds; generous, since the machines are slow and shared."""


@dataclass(slots=True)
class ChatUser:
    """A registered user with its tokens."""

    http: aiohttp.ClientSession
    url: str
    id: str
    email: str
    password: str
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}

    async def call(self, method: str, path: str, body: Json | None = None, **headers: str) -> tuple[int, Any]:
        """(status, decoded body) of one API call as this user."""
        url = f"{self.url}{path if path.startswith('/health') else '/api/v1' + path}"
        async with self.http.request(method, url, json=body, headers={**self.headers, **headers}) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def ask(self, method: str, path: str, body: Json | None = None) -> tuple[int, Any]:
        """As `call`, repeated while the answer is a 503 that says that it may help: a service is slow, or the agent of
        a new user is being made."""
        until = asyncio.get_running_loop().time() + TIMEOUT
        while True:
            status, answer = await self.call(method, path, body)
            if status != 503 or not answer["retryable"] or asyncio.get_running_loop().time() > until:
                return status, answer
            await asyncio.sleep(0.5)

    async def get(self, path: str) -> Any:
        """The body of a GET that must succeed."""
        status, body = await self.ask("GET", path)
        assert status == 200, (status, body)
        return body

    async def send(self, content: str, **fields: Any) -> tuple[int, Any]:
        """(status, body) of a message over REST whose turn has ended. An answer waits for 45 s; then the message is
        sent again, which attaches to its turn."""
        body = {"content": content, "client_message_id": uuid.uuid4().hex, "stream": False, **fields}
        async with asyncio.timeout(2 * TIMEOUT):
            while (answer := await self.call("POST", "/chat/message", body))[0] == 202:
                await asyncio.sleep(0.3)
        return answer

    async def say(self, content: str, **fields: Any) -> Json:
        """Send a message over REST and wait for its turn to end. Returns the Turn, completed."""
        status, turn = await self.send(content, **fields)
        assert (status, turn.get("status")) == (200, "completed"), (status, turn)
        return dict(turn)

    async def has_agent(self) -> None:
        """Return when the agent has been made: a message waits 30 s for it."""
        async with asyncio.timeout(TIMEOUT):
            while (await self.get("/auth/me"))["agent_status"] != "active":
                await asyncio.sleep(0.3)

    async def ended(self, turn_id: str) -> Json:
        """The turn, once it has ended."""
        async with asyncio.timeout(2 * TIMEOUT):
            while (turn := await self.get(f"/chat/turns/{turn_id}"))["status"] in ("queued", "running"):
                await asyncio.sleep(0.3)
        return dict(turn)

    @asynccontextmanager
    async def connect(self, after: str | None = None) -> AsyncIterator["Device"]:
        """A device on the WebSocket, past its `ready` frame."""
        query = {} if after is None else {"after": after}
        async with self.http.ws_connect(
            f"{self.url}/api/v1/chat/stream", headers=self.headers, params=query, max_msg_size=0
        ) as socket:
            ready = await asyncio.wait_for(socket.receive_json(), TIMEOUT)
            assert ready["type"] == "ready", ready
            async with Device(socket, ready) as device:
                yield device


@dataclass(slots=True)
class Device:
    """One open socket: it collects every frame, and tests can wait for a certain one."""

    socket: aiohttp.ClientWebSocketResponse
    ready: Json
    frames: list[Json] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._reader is not None
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                SOCKET.validate_json(message.data)
                self.frames.append(json.loads(message.data))
                self._wake()
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait_for(self, wanted: Callable[[Json], bool]) -> Json:
        """The first frame, received already or later, for which the condition holds."""
        async with asyncio.timeout(TIMEOUT):
            seen = 0
            while True:
                changed = self._changed
                for frame in self.frames[seen:]:
                    if wanted(frame):
                        return frame
                seen = len(self.frames)
                assert not self.socket.closed, f"closed with {self.socket.close_code}"
                await changed.wait()

    async def send(self, **frame: Any) -> None:
        await self.socket.send_json(frame)

    async def say(self, content: str, **fields: Any) -> Json:
        """Send a message; returns its ack."""
        client_message_id = fields.pop("client_message_id", str(uuid.uuid4()))
        await self.send(type="message", client_message_id=client_message_id, content=content, **fields)
        return await self.answer_to(client_message_id)

    async def answer_to(self, frame_id: str) -> Json:
        """The ack or error of one's own frame."""
        return await self.wait_for(lambda f: f["type"] in ("ack", "error") and f.get("id") == frame_id)

    async def end_of(self, turn_id: str) -> Json:
        """The turn's terminal event."""
        return await self.wait_for(lambda f: f["type"] in TERMINAL and f["turn_id"] == turn_id)

    def text_of(self, turn_id: str) -> str:
        """The text of a turn's reply that this device has assembled from deltas."""
        deltas = (f for f in self.frames if f["type"] == "message.delta" and f["turn_id"] == turn_id)
        return "".join(delta["text"] for delta in deltas)

    def events_of(self, turn_id: str) -> list[Json]:
        return [f for f in self.frames if f.get("turn_id") == turn_id and "seq" in f]


async def register(http: aiohttp.ClientSession, url: str, name: str = "Ada") -> ChatUser:
    """A new user with an e-mail address of its own, another one each time that a service was too slow."""
    until = asyncio.get_running_loop().time() + TIMEOUT
    while True:
        email, password = f"{uuid.uuid4().hex[:12]}@example.com", "Passw0rd-2026"
        async with http.post(
            f"{url}/api/v1/auth/register", json={"email": email, "password": password, "name": name}
        ) as response:
            status, body = response.status, await response.json()
        if status != 503 or not body["retryable"] or asyncio.get_running_loop().time() > until:
            break
        await asyncio.sleep(0.5)
    assert status == 201, (status, body)
    return ChatUser(http, url, body["user"]["id"], email, password, body["access_token"], body["refresh_token"])
